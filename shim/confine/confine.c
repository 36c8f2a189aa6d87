//go:build cgo

// The constructor that confines a host before the Go runtime starts, while
// the process still has one thread: see doc.go. It reads nothing but the order
// that limpetd wrote, and every failure ends the process with a line on
// descriptor 2. It allocates nothing.

#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>

int limpet_confined;

static struct order order;
static const char *step = "order";

// Failing

_Noreturn static void fail(const char *what, const char *name, const char *why)
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

static void check(long result, const char *what)
{
	if (result < 0)
		fail(what, NULL, strerror(errno));
}

// Reading the order

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

static void read_lists(struct reader *r)
{
	order.ntasks = count(r, MAX_TASKS, "tasks files");
	for (uint32_t i = 0; i < order.ntasks; i++)
		order.tasks[i] = fd_needed(r);
	order.nkeep = count(r, MAX_KEEP, "kept descriptors");
	for (uint32_t i = 0; i < order.nkeep; i++)
		order.keep[i] = fd_needed(r);
	order.ngroups = count(r, MAX_GROUPS, "groups");
	for (uint32_t i = 0; i < order.ngroups; i++)
		order.groups[i] = u32(r);
	order.nlimits = count(r, MAX_RLIMITS, "rlimits");
	for (uint32_t i = 0; i < order.nlimits; i++) {
		order.limits[i].resource = u32(r);
		order.limits[i].soft = u64(r);
		order.limits[i].hard = u64(r);
	}
	order.nports = count(r, MAX_PORTS, "ports");
	for (uint32_t i = 0; i < order.nports; i++)
		if ((order.ports[i] = u32(r)) > 65535)
			fail("port", NULL, "out of range");
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

// map_order maps the memory file and reads the order in it. The mapping stays
// for as long as the order is needed.
static void map_order(const uint8_t **p, size_t *size)
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

// Steps

static void join_cgroups(void)
{
	for (uint32_t i = 0; i < order.ntasks; i++) {
		check(write(order.tasks[i], "0", 1), "write tasks");
		close(order.tasks[i]);
	}
}

static void reset_signals(void)
{
	struct sigaction old;
	for (int s = 1; s < NSIG; s++)
		if (sigaction(s, NULL, &old) == 0 && old.sa_handler != SIG_DFL)
			signal(s, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	check(sigprocmask(SIG_SETMASK, &none, NULL), "sigprocmask");
}

static uint8_t known[MAX_FD / 8];

static void know(int fd)
{
	if (fd >= 0)
		known[fd / 8] |= (uint8_t)(1 << fd % 8);
}

static int is_known(int fd)
{
	return known[fd / 8] >> fd % 8 & 1;
}

static void close_strangers(void)
{
	for (int fd = 0; fd <= (order.mode == MODE_RUN ? FD_LAST_RUN : FD_LAST_COMPILE); fd++)
		know(fd);
	know(order.empty_ns);
	know(order.net_ns);
	know(order.root);
	know(order.code);
	for (uint32_t i = 0; i < order.ntasks; i++)
		know(order.tasks[i]);
	for (uint32_t i = 0; i < order.nkeep; i++)
		know(order.keep[i]);
	for (uint32_t i = 0; i < order.nmounts; i++)
		know(order.mounts[i].fd);
	for (int fd = 0; fd < MAX_FD;) {
		if (is_known(fd)) {
			fd++;
			continue;
		}
		int last = fd;
		while (last + 1 < MAX_FD && !is_known(last + 1))
			last++;
		unsigned int to = last + 1 == MAX_FD ? ~0U : (unsigned int)last;
		check(syscall(SYS_close_range, fd, to, 0), "close_range");
		fd = last + 1;
	}
}

// take_lock proves for as long as the process lives that it lives. The pid is
// the one that the node knows: /proc is still the node's.
static void take_lock(void)
{
	if (order.mode != MODE_RUN)
		return;
	check(flock(FD_LOCK, LOCK_EX | LOCK_NB), "flock");
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	check(fd, "open /proc/self/stat");
	char stat[1024], line[64];
	ssize_t n = read(fd, stat, sizeof stat - 1);
	check(n, "read /proc/self/stat");
	close(fd);
	stat[n] = 0;
	char *at = strrchr(stat, ')'); // a name may hold anything
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (!at)
		fail("/proc/self/stat", NULL, "not understood");
	unsigned long long start = strtoull(at, NULL, 10);
	int len = snprintf(line, sizeof line, "%ld %llu\n", strtol(stat, NULL, 10), start);
	check(ftruncate(FD_LOCK, 0), "ftruncate");
	if (pwrite(FD_LOCK, line, (size_t)len, 0) != len)
		fail("write", NULL, strerror(errno));
}

static void set_oom_score(void)
{
	if (!(order.flags & FLAG_OOM_SCORE))
		return;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	check(fd, "open /proc/self/oom_score_adj");
	char text[16];
	int len = snprintf(text, sizeof text, "%d", order.oom_score_adj);
	// Without CAP_SYS_RESOURCE the kernel refuses to go below the parent's.
	if (write(fd, text, (size_t)len) < 0 && errno != EACCES && errno != EPERM)
		fail("write", text, strerror(errno));
	close(fd);
}

static void join_network(void)
{
	if (order.net_ns < 0)
		return;
	check(setns(order.net_ns, CLONE_NEWNET), "setns");
	close(order.net_ns);
}

// leave_mounts leaves the node's mounts for the empty namespace. A guest gets
// a copy of its own, to mount in; the others stay in the shared one, in which
// nothing can be made.
static void leave_mounts(void)
{
	check(setns(order.empty_ns, CLONE_NEWNS), "setns");
	close(order.empty_ns);
	if (order.mode == MODE_RUN)
		check(unshare(CLONE_NEWNS), "unshare");
}

static int tmpfs(uint64_t size, uint64_t inodes, const char *mode)
{
	char bytes[32], nodes[32];
	snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)(size < 4096 ? 4096 : size));
	snprintf(nodes, sizeof nodes, "%llu", (unsigned long long)inodes);
	int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	check(fs, "fsopen tmpfs");
	check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", bytes, 0), "fsconfig size");
	check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", nodes, 0), "fsconfig nr_inodes");
	check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", mode, 0), "fsconfig mode");
	check(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig create");
	int m = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	check(m, "fsmount");
	close(fs);
	return m;
}

static void move_to(int fd, int at, const char *path, const char *name)
{
	unsigned int flags = MOVE_MOUNT_F_EMPTY_PATH | (*path ? 0 : MOVE_MOUNT_T_EMPTY_PATH);
	if (syscall(SYS_move_mount, fd, "", at, path, flags) < 0)
		fail("move_mount", name, strerror(errno));
}

// outer is the process's root: it holds `guest`, the guest's root, and `code`.
static int outer = -1;

// Room for mount points, and for a file per page of a memory-backed root.
enum { INODES_BASE = 256, INODES_PER_MOUNT = 32 };

static void make_root(void)
{
	if (order.mode != MODE_RUN)
		return;
	outer = tmpfs(4096, 8, "0555");
	check(mkdirat(outer, "guest", 0755), "mkdir guest");
	int code = openat(outer, "code", O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);
	check(code, "create code");
	close(code);
	move_to(outer, AT_FDCWD, "/", "/");
	if (order.root < 0) {
		uint64_t inodes = INODES_BASE + INODES_PER_MOUNT * (uint64_t)order.nmounts + order.root_size / 4096;
		order.root = tmpfs(order.root_size, inodes, "0755");
		if (!(order.flags & FLAG_READONLY)) {
			check(mkdirat(order.root, "tmp", 0777), "mkdir /tmp");
			check(fchmodat(order.root, "tmp", 01777, 0), "chmod /tmp");
		}
	}
	move_to(order.root, outer, "guest", "the root");
}

// The kernel answers EAGAIN when something was renamed meanwhile.
enum { RESOLVE_TRIES = 128 };

// in_root resolves a path as the guest would, links included, but never
// outside its root: images and volumes may hold any link.
static int in_root(const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = -1;
	for (int i = 0; i < RESOLVE_TRIES; i++) {
		fd = (int)syscall(SYS_openat2, order.root, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd;
}

// find_place returns a mount point and makes it, and the folders above it,
// where they are missing. path is changed on the way and restored.
static int find_place(char *path, int file)
{
	int fd = in_root(path);
	if (fd >= 0)
		return fd;
	if (errno != ENOENT)
		fail("place", path, strerror(errno));
	char *slash = strrchr(path, '/'), *name = slash + 1;
	int parent;
	if (slash == path) {
		parent = in_root("/");
	} else {
		*slash = 0;
		parent = find_place(path, 0);
		*slash = '/';
	}
	check(parent, "open the parent");
	// Neither call follows a link in the last part.
	int made = file ? openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY | O_CLOEXEC, 0644)
			: mkdirat(parent, name, 0755);
	if (made < 0 && errno != EEXIST)
		fail("make place", path, strerror(errno));
	if (file && made >= 0)
		close(made);
	close(parent);
	fd = in_root(path);
	if (fd < 0)
		fail("place", path, strerror(errno));
	return fd;
}

static void move_mounts(void)
{
	static char path[MAX_PATH + 1];
	for (uint32_t i = 0; i < order.nmounts; i++) {
		struct place *m = &order.mounts[i];
		struct stat source, target;
		int file = (m->flags & MOUNT_FILE) != 0;
		check(fstat(m->fd, &source), "fstat the mount");
		if (S_ISDIR(source.st_mode) == file)
			fail("mount", m->path, file ? "is a folder, not a file" : "is not a folder");
		strcpy(path, m->path);
		int at = find_place(path, file);
		check(fstat(at, &target), "fstat the place");
		if (S_ISDIR(target.st_mode) != S_ISDIR(source.st_mode))
			fail("place", path, file ? "is a folder in the image, the mount is a file"
						 : "is a file in the image, the mount is a folder");
		move_to(m->fd, at, "", path);
		close(at);
	}
}

static void move_code(void)
{
	if (order.code >= 0)
		move_to(order.code, outer, "code", "the compiled code");
}

static void set_attributes(int fd, uint64_t attributes)
{
	struct mount_attr a = { .attr_set = attributes };
	check(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a), "mount_setattr");
}

static void protect_root(void)
{
	if (order.mode != MODE_RUN)
		return;
	const uint64_t always = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	set_attributes(outer, always | MOUNT_ATTR_RDONLY);
	set_attributes(order.root, always | (order.flags & FLAG_READONLY ? MOUNT_ATTR_RDONLY : 0));
}

static void change_root(void)
{
	if (order.mode == MODE_RUN) {
		check(fchdir(outer), "fchdir");
		check(chroot("."), "chroot");
	}
	check(chdir("/"), "chdir");
}

static void set_limits(void)
{
	struct rlimit none = { 0, 0 };
	check(setrlimit(RLIMIT_CORE, &none), "core");
	for (uint32_t i = 0; i < order.nlimits; i++) {
		const struct limit *l = &order.limits[i];
		if (l->resource == RLIMIT_CORE)
			continue;
		struct rlimit r = { l->soft, l->hard };
		if (setrlimit((int)l->resource, &r) < 0) {
			char number[16];
			snprintf(number, sizeof number, "%u", l->resource);
			fail("rlimit", number, strerror(errno));
		}
	}
}

static void drop_bounding_set(void)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL) // behind the last one
			return;
		check(-1, "prctl");
	}
}

static void set_groups(void)
{
	check(setgroups(order.ngroups, order.groups), "setgroups");
}

static void set_gid(void)
{
	check(setresgid(order.gid, order.gid, order.gid), "setresgid");
}

static void set_uid(void)
{
	check(setresuid(order.uid, order.uid, order.uid), "setresuid");
}

static void drop_capabilities(void)
{
	check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear the ambient set");
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2];
	memset(none, 0, sizeof none);
	check(syscall(SYS_capset, &head, none), "capset");
}

static void forbid_privileges(void)
{
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
}

static void forbid_dumps(void)
{
	check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl");
}

// Landlock. Its header is older than the kernel on most build machines, so
// what is used of it stands here.

struct ruleset {
	uint64_t fs, net, scoped;
};

struct path_rule {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

struct port_rule {
	uint64_t allowed, port;
};

enum { RULE_PATH = 1, RULE_PORT = 2, CREATE_VERSION = 1, ABI_MIN = 2 };

#define LL_EXECUTE (1ULL << 0)
#define LL_WRITE_FILE (1ULL << 1)
#define LL_READ_FILE (1ULL << 2)
#define LL_READ_DIR (1ULL << 3)
#define LL_REMOVE (3ULL << 4) // folders, files
#define LL_MAKE (1ULL << 7 | 1ULL << 8 | 1ULL << 12) // folders, files, links
#define LL_REFER (1ULL << 13) // ABI 2
#define LL_TRUNCATE (1ULL << 14) // ABI 3
#define LL_IOCTL_DEV (1ULL << 15) // ABI 5
#define LL_BIND (1ULL << 0) // ABI 4
#define LL_CONNECT (1ULL << 1)
#define LL_SCOPED 3ULL // abstract sockets, signals: ABI 6

#define LL_READ (LL_READ_FILE | LL_READ_DIR)
#define LL_WRITE (LL_WRITE_FILE | LL_REMOVE | LL_MAKE | LL_REFER | LL_TRUNCATE)
#define LL_OF_FILES (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE)

static void allow_path(int rules, int fd, uint64_t allowed, uint64_t handled)
{
	struct stat st;
	check(fstat(fd, &st), "fstat");
	if (!S_ISDIR(st.st_mode))
		allowed &= LL_OF_FILES;
	struct path_rule rule = { allowed & handled, fd };
	check(syscall(SYS_landlock_add_rule, rules, RULE_PATH, &rule, 0), "rule");
}

static void allow_mounts(int rules, uint64_t handled)
{
	if (order.mode != MODE_RUN)
		return;
	uint64_t write = order.flags & FLAG_READONLY ? 0 : LL_WRITE;
	allow_path(rules, order.root, LL_READ | write, handled);
	allow_path(rules, order.code, LL_READ_FILE, handled);
	for (uint32_t i = 0; i < order.nmounts; i++) {
		const struct place *m = &order.mounts[i];
		allow_path(rules, m->fd, LL_READ | (m->flags & MOUNT_WRITABLE ? LL_WRITE : 0), handled);
	}
}

// lock_land denies all of the file system but the mounts, every TCP port but
// those to listen on, and signals and abstract sockets of others. Version 1
// would refuse every rename between folders: it counts as absent, which the
// daemon logs.
static void lock_land(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);
	if (abi < ABI_MIN)
		return;
	struct ruleset r = { .fs = LL_TRUNCATE - 1 };
	size_t size = sizeof r.fs;
	if (abi >= 3)
		r.fs |= LL_TRUNCATE;
	if (abi >= 4) {
		r.net = LL_BIND | LL_CONNECT;
		size = offsetof(struct ruleset, scoped);
	}
	if (abi >= 5)
		r.fs |= LL_IOCTL_DEV;
	if (abi >= 6) {
		r.scoped = LL_SCOPED;
		size = sizeof r;
	}
	int rules = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
	check(rules, "create ruleset");
	allow_mounts(rules, r.fs);
	for (uint32_t i = 0; r.net && i < order.nports; i++) {
		struct port_rule rule = { LL_BIND, order.ports[i] };
		check(syscall(SYS_landlock_add_rule, rules, RULE_PORT, &rule, 0), "port");
	}
	check(syscall(SYS_landlock_restrict_self, rules, 0), "restrict");
	close(rules);
}

// close_mounts lets go of what only the steps before needed.
static void close_mounts(void)
{
	if (order.mode != MODE_RUN)
		return;
	for (uint32_t i = 0; i < order.nmounts; i++)
		close(order.mounts[i].fd);
	close(order.code);
	close(order.root);
	close(outer);
}

static void install_filter(void)
{
	struct sock_fprog p = { (unsigned short)order.nfilter, (struct sock_filter *)order.filter };
	umask(022);
	check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p), "seccomp");
}

// The steps in their order. Before the node's mounts are left: what needs
// /proc or a descriptor of the node. Before the user: what needs privilege.
// Last: what would forbid the others.
static const struct {
	const char *name;
	void (*run)(void);
} steps[] = {
	{ "cgroup", join_cgroups },
	{ "signals", reset_signals },
	{ "descriptors", close_strangers },
	{ "lock", take_lock },
	{ "oom_score_adj", set_oom_score },
	{ "network", join_network },
	{ "mount namespace", leave_mounts },
	{ "root", make_root },
	{ "mounts", move_mounts },
	{ "code", move_code },
	{ "read-only", protect_root },
	{ "chroot", change_root },
	{ "rlimits", set_limits },
	{ "bounding set", drop_bounding_set },
	{ "groups", set_groups },
	{ "gid", set_gid },
	{ "uid", set_uid },
	{ "capabilities", drop_capabilities },
	{ "no_new_privs", forbid_privileges },
	{ "dumpable", forbid_dumps },
	{ "landlock", lock_land },
	{ "close mounts", close_mounts },
	{ "seccomp", install_filter },
};

enum { STEPS = sizeof steps / sizeof *steps };

const char *limpet_confine_step(int i)
{
	return i >= 0 && i < STEPS ? steps[i].name : NULL;
}

// skipped is for the tests: a build with LIMPET_CONFINE_PROBE leaves out the
// step that the environment names, to show that its absence is seen.
static int skipped(const char *name)
{
#ifdef LIMPET_CONFINE_PROBE
	const char *skip = getenv("LIMPET_CONFINE_SKIP");
	return skip && strcmp(skip, name) == 0;
#else
	(void)name;
	return 0;
#endif
}

__attribute__((constructor)) static void confine(void)
{
	const char *host = getenv("LIMPET_HOST");
	if (!host || strcmp(host, "1") != 0)
		return;
	const uint8_t *map;
	size_t size;
	map_order(&map, &size);
	umask(0);
	for (int i = 0; i < STEPS; i++) {
		step = steps[i].name;
		if (!skipped(step))
			steps[i].run();
	}
	munmap((void *)map, size);
	limpet_confined = 1;
}
