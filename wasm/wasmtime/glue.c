#include "glue.h"
#include "_cgo_export.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

// A wrong configuration aborts inside the engine: whatever comes from outside
// was checked in Go. Settings that enter the code are the same in the process
// that compiles and in the one that runs; parallel and max_wasm_stack do not.
wasm_engine_t *lp_engine_new(const lp_settings *s) {
  wasm_config_t *c = wasm_config_new();
  uint32_t p = s->proposals;
  wasmtime_config_strategy_set(c, WASMTIME_STRATEGY_CRANELIFT);
  wasmtime_config_cranelift_opt_level_set(c, WASMTIME_OPT_LEVEL_SPEED);
  wasmtime_config_cranelift_nan_canonicalization_set(c, false);
  wasmtime_config_debug_info_set(c, false);
  wasmtime_config_consume_fuel_set(c, false);
  wasmtime_config_epoch_interruption_set(c, s->epoch);
  wasmtime_config_parallel_compilation_set(c, s->parallel);
  wasmtime_config_signals_based_traps_set(c, true);
  wasmtime_config_native_unwind_info_set(c, true);
  wasmtime_config_max_wasm_stack_set(c, s->max_wasm_stack);
  wasmtime_config_async_stack_size_set(c, s->max_wasm_stack + (1u << 20)); // unused, but checked against the above
  wasmtime_config_memory_init_cow_set(c, true);
  wasmtime_config_memory_may_move_set(c, false);
  wasmtime_config_memory_reservation_set(c, 4ull << 30);
  wasmtime_config_memory_guard_size_set(c, 32ull << 20);

  wasmtime_config_wasm_tail_call_set(c, p & LP_TAIL_CALL);
  wasmtime_config_wasm_reference_types_set(c, p & LP_REFERENCE_TYPES);
  wasmtime_config_wasm_relaxed_simd_set(c, p & LP_RELAXED_SIMD);
  wasmtime_config_wasm_relaxed_simd_deterministic_set(c, false);
  wasmtime_config_wasm_simd_set(c, p & LP_SIMD);
  wasmtime_config_wasm_bulk_memory_set(c, p & LP_BULK_MEMORY);
  wasmtime_config_wasm_multi_value_set(c, p & LP_MULTI_VALUE);
  wasmtime_config_wasm_multi_memory_set(c, p & LP_MULTI_MEMORY);
  wasmtime_config_wasm_memory64_set(c, p & LP_MEMORY64); // table64 goes with it
  wasmtime_config_wasm_exceptions_set(c, p & LP_EXCEPTIONS);
  wasmtime_config_wasm_function_references_set(c, p & LP_FUNCTION_REFERENCES);
  wasmtime_config_wasm_gc_set(c, p & LP_GC);
  wasmtime_config_gc_support_set(c, true); // externref needs it; the heap is made at first use
  wasmtime_config_wasm_wide_arithmetic_set(c, p & LP_WIDE_ARITHMETIC);
  wasmtime_config_wasm_custom_page_sizes_set(c, p & LP_CUSTOM_PAGE_SIZES);
  wasmtime_config_wasm_threads_set(c, false);
  wasmtime_config_shared_memory_set(c, false);
  wasmtime_config_wasm_stack_switching_set(c, false);
  wasmtime_config_wasm_component_model_set(c, false);
  wasmtime_config_concurrency_support_set(c, false);
  return wasm_engine_new_with_config(c);
}

size_t lp_thread_stack(void) {
  pthread_attr_t a;
  size_t n = 0;
  if (pthread_attr_init(&a) == 0) {
    if (pthread_attr_getstacksize(&a, &n) != 0) n = 0;
    pthread_attr_destroy(&a);
  }
  return n;
}

// ---- types ----

static void describe(const wasm_externtype_t *t, bool with_types, lp_item *it) {
  it->kind = wasm_externtype_kind(t);
  it->typed = false;
  it->params = it->results = 0;
  const wasm_functype_t *f = with_types ? wasm_externtype_as_functype_const(t) : NULL;
  if (!f) return;
  const wasm_valtype_vec_t *p = wasm_functype_params(f), *r = wasm_functype_results(f);
  if (p->size + r->size > LP_MAX_TYPES) return;
  it->typed = true;
  it->params = (uint32_t)p->size;
  it->results = (uint32_t)r->size;
  uint8_t *o = it->types;
  for (size_t i = 0; i < p->size; i++) *o++ = wasm_valtype_kind(p->data[i]);
  for (size_t i = 0; i < r->size; i++) *o++ = wasm_valtype_kind(r->data[i]);
}

void lp_import(const wasm_importtype_vec_t *v, size_t i, bool with_types, lp_item *it) {
  const wasm_name_t *m = wasm_importtype_module(v->data[i]), *n = wasm_importtype_name(v->data[i]);
  it->module = m->data, it->module_len = m->size;
  it->name = n->data, it->name_len = n->size;
  describe(wasm_importtype_type(v->data[i]), with_types, it);
}

void lp_export(const wasm_exporttype_vec_t *v, size_t i, bool with_types, lp_item *it) {
  const wasm_name_t *n = wasm_exporttype_name(v->data[i]);
  it->module = NULL, it->module_len = 0;
  it->name = n->data, it->name_len = n->size;
  describe(wasm_exporttype_type(v->data[i]), with_types, it);
}

// ---- host functions ----

// find_memory looks up the caller's exported memory once; a store holds one
// instance, so that its handle stays good.
static bool find_memory(lp_guest *g, wasmtime_caller_t *c) {
  if (g->memory_known) return g->memory_known == 2;
  wasmtime_extern_t e;
  g->memory_known = 1;
  if (!wasmtime_caller_export_get(c, "memory", 6, &e)) return false;
  if (e.kind == WASMTIME_EXTERN_MEMORY) g->memory = e.of.memory, g->memory_known = 2;
  wasmtime_extern_delete(&e);
  return g->memory_known == 2;
}

static lp_guest *guest_of(wasmtime_caller_t *c, wasmtime_context_t **cx) {
  *cx = wasmtime_caller_context(c);
  return wasmtime_context_get_data(*cx);
}

// The one way into Go. env is the number of the host function. Go keeps why
// the guest has to end; the engine only needs some trap to unwind with.
static wasm_trap_t *tramp_go(void *env, wasmtime_caller_t *c, wasmtime_val_raw_t *raw, size_t n) {
  wasmtime_context_t *cx;
  lp_guest *g = guest_of(c, &cx);
  uint8_t *base = NULL;
  size_t size = 0;
  if (find_memory(g, c)) {
    base = wasmtime_memory_data(cx, &g->memory);
    size = wasmtime_memory_data_size(cx, &g->memory);
  }
  if (limpetHostCall(g->owner, (uintptr_t)env, base, size, raw, n)) return wasmtime_trap_new("host", 4);
  return NULL;
}

// view returns the len bytes of guest memory at at, or NULL.
static uint8_t *view(lp_guest *g, wasmtime_context_t *cx, wasmtime_caller_t *c, uint32_t at, uint64_t len) {
  if (!find_memory(g, c) || (uint64_t)at + len > wasmtime_memory_data_size(cx, &g->memory)) return NULL;
  return wasmtime_memory_data(cx, &g->memory) + at;
}

static void success(wasmtime_val_raw_t *raw) { raw[0].i64 = 0; }

// The fast functions answer only what is plainly right; whatever else (another
// clock, a bad pointer, a long buffer) is left to the Go function of the same
// number, so that errors have one home.

// clock_time_get(id: i32, precision: i64, out: i32) -> errno
static wasm_trap_t *tramp_clock(void *env, wasmtime_caller_t *c, wasmtime_val_raw_t *raw, size_t n) {
  wasmtime_context_t *cx;
  lp_guest *g = guest_of(c, &cx);
  uint32_t id = (uint32_t)raw[0].i32;
  uint8_t *out = id <= 1 ? view(g, cx, c, (uint32_t)raw[2].i32, 8) : NULL;
  struct timespec ts;
  if (!out || clock_gettime(id == 0 ? CLOCK_REALTIME : CLOCK_MONOTONIC, &ts) != 0) return tramp_go(env, c, raw, n);
  uint64_t v = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
  memcpy(out, &v, 8); // both architectures are little-endian, as guest memory is
  success(raw);
  return NULL;
}

// sched_yield() -> errno
static wasm_trap_t *tramp_yield(void *env, wasmtime_caller_t *c, wasmtime_val_raw_t *raw, size_t n) {
  sched_yield();
  success(raw);
  return NULL;
}

// A getrandom of up to 256 bytes is never cut short by a signal; a longer one
// belongs to Go, where it can be cancelled.
enum { RANDOM_MAX = 256 };

// random_get(buf: i32, len: i32) -> errno
static wasm_trap_t *tramp_random(void *env, wasmtime_caller_t *c, wasmtime_val_raw_t *raw, size_t n) {
  wasmtime_context_t *cx;
  lp_guest *g = guest_of(c, &cx);
  uint32_t len = (uint32_t)raw[1].i32;
  uint8_t *buf = len <= RANDOM_MAX ? view(g, cx, c, (uint32_t)raw[0].i32, len) : NULL;
  if (!buf || getrandom(buf, len, 0) != (ssize_t)len) return tramp_go(env, c, raw, n);
  success(raw);
  return NULL;
}

static const wasmtime_func_unchecked_callback_t tramps[] = {tramp_go, tramp_clock, tramp_yield, tramp_random};

static void value_types(wasm_valtype_vec_t *v, const uint8_t *kinds, size_t n) {
  wasm_valtype_vec_new_uninitialized(v, n);
  for (size_t i = 0; i < n; i++) v->data[i] = wasm_valtype_new(kinds[i]);
}

wasmtime_error_t *lp_define(wasmtime_linker_t *l, const lp_item *it, const uint8_t *params, size_t n_params,
                            const uint8_t *results, size_t n_results, uint8_t fast, uint32_t index) {
  wasm_valtype_vec_t p, r;
  value_types(&p, params, n_params);
  value_types(&r, results, n_results);
  wasm_functype_t *t = wasm_functype_new(&p, &r);
  wasmtime_error_t *e = wasmtime_linker_define_func_unchecked(l, it->module, it->module_len, it->name, it->name_len, t,
                                                              tramps[fast], (void *)(uintptr_t)index, NULL);
  wasm_functype_delete(t);
  return e;
}

// ---- guests ----

lp_guest *lp_guest_new(wasm_engine_t *e, int64_t memory, int64_t table, int64_t instances,
                       int64_t tables, int64_t memories) {
  lp_guest *g = calloc(1, sizeof *g);
  if (!g) return NULL;
  g->store = wasmtime_store_new(e, g, NULL);
  g->cx = wasmtime_store_context(g->store);
  g->table = table, g->instances = instances, g->tables = tables, g->memories = memories;
  lp_guest_bound(g, memory);
  wasmtime_context_set_epoch_deadline(g->cx, 1);
  return g;
}

// A store belongs to the thread that runs its guest; this one call may come
// from another. The engine copies the bounds into the store, where growth looks
// them up each time: all words but the one of memory's bound are written over
// with what they hold, and that one is written whole (none is negative, which
// would be two words). A test compares the store before and after.
void lp_guest_bound(lp_guest *g, int64_t memory) {
  wasmtime_store_limiter(g->store, memory, g->table, g->instances, g->tables, g->memories);
}

void lp_guest_delete(lp_guest *g) {
  wasmtime_store_delete(g->store);
  free(g);
}

bool lp_instantiate(lp_guest *g, const wasmtime_instance_pre_t *pre) {
  g->trap = NULL;
  g->error = wasmtime_instance_pre_instantiate(pre, g->cx, &g->instance, &g->trap);
  return !g->error && !g->trap;
}

int lp_entry(lp_guest *g, const char *name, size_t len, wasmtime_func_t *out) {
  wasmtime_extern_t e;
  if (!wasmtime_instance_export_get(g->cx, &g->instance, name, len, &e)) return LP_NO_EXPORT;
  if (e.kind != WASMTIME_EXTERN_FUNC) {
    wasmtime_extern_delete(&e);
    return LP_NOT_A_FUNCTION;
  }
  *out = e.of.func;
  wasm_functype_t *t = wasmtime_func_type(g->cx, out);
  bool plain = wasm_functype_params(t)->size == 0 && wasm_functype_results(t)->size == 0;
  wasm_functype_delete(t);
  return plain ? LP_FOUND : LP_OTHER_TYPE;
}

bool lp_call(lp_guest *g, wasmtime_func_t f) {
  wasmtime_val_raw_t none;
  g->trap = NULL;
  g->error = wasmtime_func_call_unchecked(g->cx, &f, &none, 0, &g->trap);
  return !g->error && !g->trap;
}
