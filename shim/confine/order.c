//go:build cgo

// Reading the order: see confine.h. What limpetd wrote is checked all the
// same, and nothing is allocated: strings and the filter stay where they are
// in the mapped memory file.

#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/filter.h>

struct order order;
const char *step = "order";

_Noreturn void fail(const char *what, const char *name, const char *why)
{
	struct iovec v[] = {
		{ "confine: ", 9 }, { (void *)step, strlen(step) }, { ": ", 2 },
		{ (void *)what, strlen(what) }, { name ? " " : "", name ? 1 : 0 },
		{ (void *)(name ? name : ""), name ? strlen(name) : 0 },
		{ ": ", 2 }, { (void *)why, strlen(why) }, { "\n", 1 },
	};
	ssize_t n = writev(2, v, sizeof v / sizeof *v);
	(void)n;
	_exit(71);
}

void check(long result, const char *what)
{
	if (result < 0)
		fail(what, NULL, strerror(errno));
}

struct reader {
	const uint8_t *at, *end;
};

static const void *take(struct reader *r, size_t n)
{
	if ((size_t)(r->end - r->at) < n)
		fail("record", NULL, "the order ends early");
	const void *p = r->at;
	r->at += n;
	return p;
}

static uint32_t u32(struct reader *r)
{
	const uint8_t *p = take(r, 4);
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t u64(struct reader *r)
{
	uint64_t low = u32(r);
	return low | (uint64_t)u32(r) << 32;
}

// fd_number reads a descriptor; 0 is none and becomes -1.
static int fd_number(struct reader *r)
{
	uint32_t n = u32(r);
	if (n == 0)
		return -1;
	if (n < FD_ORDER || n >= MAX_FD)
		fail("descriptor", NULL, "out of range");
	return (int)n;
}

static int fd_needed(struct reader *r)
{
	int fd = fd_number(r);
	if (fd < 0)
		fail("descriptor", NULL, "missing");
	return fd;
}

static uint32_t count(struct reader *r, uint32_t max, const char *what)
{
	uint32_t n = u32(r);
	if (n > max)
		fail(what, NULL, "too many");
	return n;
}

// check_place demands an absolute, clean path below the root.
static void check_place(const char *p, size_t n)
{
	if (n < 2 || n > MAX_PATH || p[0] != '/' || p[n] != 0 || strlen(p) != n)
		fail("mount point", NULL, "malformed");
	for (const char *part = p + 1;;) {
		size_t len = strcspn(part, "/");
		if (len == 0 || (len == 1 && part[0] == '.') || (len == 2 && part[0] == '.' && part[1] == '.'))
			fail("mount point", p, "not a clean path");
		if (part[len] == 0)
			return;
		part += len + 1;
	}
}

static void read_mount(struct reader *r, struct place *m)
{
	m->fd = fd_needed(r);
	m->flags = u32(r);
	if (m->flags & ~MOUNT_FLAGS_ALL)
		fail("mount", NULL, "unknown flag");
	uint32_t n = u32(r);
	if (n > MAX_PATH)
		fail("mount point", NULL, "too long");
	m->path = take(r, (size_t)n + 1);
	check_place(m->path, n);
}

static uint32_t fd_list(struct reader *r, int *to, uint32_t max)
{
	uint32_t n = count(r, max, "descriptors");
	for (uint32_t i = 0; i < n; i++)
		to[i] = fd_needed(r);
	return n;
}

static uint32_t number_list(struct reader *r, uint32_t *to, uint32_t max, const char *what)
{
	uint32_t n = count(r, max, what);
	for (uint32_t i = 0; i < n; i++)
		to[i] = u32(r);
	return n;
}

static void read_lists(struct reader *r)
{
	order.ntasks = fd_list(r, order.tasks, MAX_TASKS);
	order.nkeep = fd_list(r, order.keep, MAX_KEEP);
	order.ngroups = number_list(r, order.groups, MAX_GROUPS, "groups");
	order.nlimits = count(r, MAX_RLIMITS, "rlimits");
	for (uint32_t i = 0; i < order.nlimits; i++) {
		uint32_t resource = u32(r);
		uint64_t soft = u64(r);
		order.limits[i] = (struct limit){ resource, soft, u64(r) };
	}
	order.nports = number_list(r, order.ports, MAX_PORTS, "ports");
	order.nmounts = count(r, MAX_MOUNTS, "mounts");
	for (uint32_t i = 0; i < order.nmounts; i++)
		read_mount(r, &order.mounts[i]);
}

static void check_order(void)
{
	if (order.mode != MODE_RUN && order.mode != MODE_COMPILE && order.mode != MODE_KEY)
		fail("mode", NULL, "unknown");
	if (order.flags & ~FLAGS_ALL)
		fail("flags", NULL, "unknown");
	if (order.empty_ns < 0)
		fail("empty mount namespace", NULL, "missing");
	if (order.mode == MODE_RUN && order.code < 0)
		fail("compiled code", NULL, "missing");
	if (order.mode != MODE_RUN && (order.root >= 0 || order.code >= 0 || order.nmounts > 0))
		fail("mounts", NULL, "only a guest has them");
	int zero = order.uid == 0 || order.gid == 0;
	for (uint32_t i = 0; i < order.ngroups; i++)
		zero |= order.groups[i] == 0;
	if (zero && !(order.flags & FLAG_ALLOW_ROOT))
		fail("user or group", NULL, "0 is not allowed");
	if (order.uid == (uid_t)-1 || order.gid == (gid_t)-1)
		fail("user or group", NULL, "out of range");
}

static void read_order(const uint8_t *p, size_t length)
{
	struct reader r = { p, p + length };
	take(&r, 32);
	order.mode = u32(&r);
	order.flags = u32(&r);
	order.empty_ns = fd_number(&r);
	order.net_ns = fd_number(&r);
	order.root = fd_number(&r);
	order.root_size = u64(&r);
	order.code = fd_number(&r);
	order.uid = u32(&r);
	order.gid = u32(&r);
	order.oom_score_adj = (int)u32(&r);
	read_lists(&r);
	uint32_t n = u32(&r);
	if (n == 0 || n % sizeof(struct sock_filter) || n / sizeof(struct sock_filter) > MAX_FILTER)
		fail("filter", NULL, "malformed");
	order.nfilter = n / sizeof(struct sock_filter);
	order.filter = take(&r, n);
	if (r.at != r.end)
		fail("order", NULL, "something follows its last record");
	check_order();
}

void map_order(const uint8_t **p, size_t *size)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int have = fcntl(FD_ORDER, F_GET_SEALS);
	if (have < 0 || (have & seals) != seals)
		fail("descriptor 3", NULL, "is no sealed memory file");
	struct stat st;
	check(fstat(FD_ORDER, &st), "fstat");
	if (st.st_size < 32 || st.st_size > MAX_ORDER + MAX_PAYLOAD)
		fail("memory file", NULL, "has a wrong size");
	*size = (size_t)st.st_size;
	void *map = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, FD_ORDER, 0);
	if (map == MAP_FAILED)
		fail("mmap", NULL, strerror(errno));
	*p = map;
	if (memcmp(map, "LIMPETC1", 8) != 0)
		fail("memory file", NULL, "holds no order");
	struct reader h = { *p + 8, *p + 32 };
	if (u32(&h) != 1)
		fail("version", NULL, "the order was written by another release");
	uint64_t length = u32(&h), seal = u32(&h), nseal = u32(&h), payload = u32(&h), npayload = u32(&h);
	if (length < 32 || seal != length || payload != seal + nseal || payload + npayload != *size)
		fail("header", NULL, "lengths do not fit");
	read_order(*p, length);
}
