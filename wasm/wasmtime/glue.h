// What the Go files of this package call: each function does in C what would
// otherwise take many crossings.
#ifndef LIMPET_GLUE_H
#define LIMPET_GLUE_H

#include "api.h"

// Bits of lp_settings.proposals. The order is that of the table in proposals.go.
enum {
  LP_TAIL_CALL = 1 << 0,
  LP_REFERENCE_TYPES = 1 << 1,
  LP_SIMD = 1 << 2,
  LP_RELAXED_SIMD = 1 << 3,
  LP_BULK_MEMORY = 1 << 4,
  LP_MULTI_VALUE = 1 << 5,
  LP_MULTI_MEMORY = 1 << 6,
  LP_MEMORY64 = 1 << 7,
  LP_EXCEPTIONS = 1 << 8,
  LP_FUNCTION_REFERENCES = 1 << 9,
  LP_GC = 1 << 10,
  LP_WIDE_ARITHMETIC = 1 << 11,
  LP_CUSTOM_PAGE_SIZES = 1 << 12,
};

typedef struct {
  uint32_t proposals;
  bool parallel, epoch;
  size_t max_wasm_stack;
} lp_settings;

wasm_engine_t *lp_engine_new(const lp_settings *);
size_t lp_thread_stack(void); // size of the stack that new threads get, 0 if not known

// One import or export of a module, as views into the vector it came from.
enum { LP_MAX_TYPES = 64 }; // parameters and results that a description holds
typedef struct {
  const char *module, *name;
  size_t module_len, name_len;
  uint32_t kind;               // wasm_externkind_t
  bool typed;                  // the types below are known
  uint32_t params, results;    // counts
  uint8_t types[LP_MAX_TYPES]; // parameters, then results
} lp_item;

// The API aborts when asked for the kind of a reference other than funcref and
// externref: with_types is false where a module could have one.
void lp_import(const wasm_importtype_vec_t *, size_t i, bool with_types, lp_item *);
void lp_export(const wasm_exporttype_vec_t *, size_t i, bool with_types, lp_item *);
// lp_define offers, under the name of it, the host function number index.
wasmtime_error_t *lp_define(wasmtime_linker_t *, const lp_item *it, const uint8_t *params, size_t n_params,
                            const uint8_t *results, size_t n_results, uint8_t fast, uint32_t index);

// lp_guest is an instance and its store; the store's data points to it.
typedef struct {
  wasmtime_store_t *store;
  wasmtime_context_t *cx;
  wasmtime_instance_t instance;
  wasmtime_memory_t memory; // valid if memory_known == 2
  int memory_known;         // 0 not looked up, 1 exports none, 2 known
  int64_t table, instances, tables, memories; // bounds that stay
  void *owner;              // the pinned *Instance, set by Go
  wasm_trap_t *trap;        // how the last call ended, if not well
  wasmtime_error_t *error;
} lp_guest;

lp_guest *lp_guest_new(wasm_engine_t *, int64_t memory, int64_t table, int64_t instances,
                       int64_t tables, int64_t memories);
void lp_guest_bound(lp_guest *, int64_t memory);
void lp_guest_delete(lp_guest *);
bool lp_instantiate(lp_guest *, const wasmtime_instance_pre_t *);
enum { LP_FOUND, LP_NO_EXPORT, LP_NOT_A_FUNCTION, LP_OTHER_TYPE };
int lp_entry(lp_guest *, const char *name, size_t len, wasmtime_func_t *);
bool lp_call(lp_guest *, wasmtime_func_t);

#endif
