// The order as the constructor reads it; order.go writes it.

#ifndef LIMPET_CONFINE_H
#define LIMPET_CONFINE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// The binary is linked with much else: its names get a prefix.
#define order limpet_order
#define step limpet_step
#define fail limpet_fail
#define check limpet_check
#define map_order limpet_map_order

enum { MODE_RUN = 1, MODE_COMPILE = 2, MODE_KEY = 3 };
enum { FLAG_READONLY = 1, FLAG_ALLOW_ROOT = 2, FLAG_OOM_SCORE = 4, FLAGS_ALL = 7 };
enum { MOUNT_FILE = 1, MOUNT_WRITABLE = 2, MOUNT_FLAGS_ALL = 3 };

// Descriptors, as shim/spec has them; a test holds them equal.
enum { FD_ORDER = 3, FD_LOCK = 6, FD_LAST_RUN = 7, FD_LAST_COMPILE = 5 };

// Bounds, as order.go has them; a test holds them equal.
enum {
	MAX_FD = 4096, MAX_MOUNTS = 1024, MAX_PATH = 4095, MAX_GROUPS = 1024,
	MAX_TASKS = 16, MAX_KEEP = 64, MAX_RLIMITS = 16, MAX_PORTS = 64, MAX_FILTER = 4096,
	MAX_ORDER = 4 << 20, MAX_PAYLOAD = 16 << 20,
};

struct place {
	int fd;
	uint32_t flags;
	const char *path;
};

struct limit {
	uint32_t resource;
	uint64_t soft, hard;
};

struct order {
	uint32_t mode, flags;
	int empty_ns, net_ns, root, code;
	uint64_t root_size;
	uint32_t uid, gid;
	int oom_score_adj;
	uint32_t ntasks, nkeep, ngroups, nlimits, nports, nmounts, nfilter;
	int tasks[MAX_TASKS], keep[MAX_KEEP];
	uint32_t groups[MAX_GROUPS], ports[MAX_PORTS];
	struct limit limits[MAX_RLIMITS];
	struct place mounts[MAX_MOUNTS];
	const void *filter;
};

extern struct order order;

// step is the name of the step that runs, for fail.
extern const char *step;

// fail writes "confine: STEP: WHAT NAME: WHY" to descriptor 2 and ends the
// process; name may be NULL.
_Noreturn void fail(const char *what, const char *name, const char *why);

// check fails with errno's text if the result is negative.
void check(long result, const char *what);

// map_order maps the memory file and reads the order in it. The mapping stays
// for as long as the order is needed.
void map_order(const uint8_t **p, size_t *size);

// limpet_confined is 1 once the constructor has done everything.
extern int limpet_confined;

// limpet_confine_step returns the name of a step, or NULL behind the last.
const char *limpet_confine_step(int i);

#endif
