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
#include <unistd.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>

int limpet_confined;

static void join_cgroups(void)
{
	for (uint32_t i = 0; i < order.ntasks; i++) {
		check(write(order.tasks[i], "0", 1), "write tasks");
		close(order.tasks[i]);
	}
}

// reset_signals asks the kernel itself: the library keeps two signals to
// itself, which whoever started limpetd may ignore all the same.
static void reset_signals(void)
{
	const unsigned long by_default[4] = { 0 }; // the kernel's struct sigaction: SIG_DFL, no flags, no mask
	for (int s = 1; s < NSIG; s++)
		if (s != SIGKILL && s != SIGSTOP)
			check(syscall(SYS_rt_sigaction, s, by_default, NULL, 8), "rt_sigaction");
	sigset_t none;
	sigemptyset(&none);
	check(sigprocmask(SIG_SETMASK, &none, NULL), "sigprocmask");
}

static uint8_t known[MAX_FD];

static void know(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			known[fds[i]] = 1;
}

static void close_strangers(void)
{
	memset(known, 1, (order.mode == MODE_RUN ? FD_LAST_RUN : FD_LAST_COMPILE) + 1);
	know((int[]){ order.empty_ns, order.net_ns, order.root, order.code }, 4);
	know(order.tasks, order.ntasks);
	know(order.keep, order.nkeep);
	for (uint32_t i = 0; i < order.nmounts; i++)
		know(&order.mounts[i].fd, 1);
	for (int fd = 0, last; fd < MAX_FD; fd = last + 1) {
		for (last = fd; last + 1 < MAX_FD && known[last + 1] == known[fd]; last++)
			;
		unsigned int to = last + 1 == MAX_FD ? ~0U : (unsigned int)last;
		if (!known[fd])
			check(syscall(SYS_close_range, fd, to, 0), "close_range");
	}
	if (known[MAX_FD - 1])
		check(syscall(SYS_close_range, MAX_FD, ~0U, 0), "close_range");
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
	int m = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0); // protect_root sets its attributes
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
	int fd, tries = RESOLVE_TRIES;
	do {
		fd = (int)syscall(SYS_openat2, order.root, path, &how, sizeof how);
	} while (fd < 0 && errno == EAGAIN && --tries > 0);
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

static void set_attributes(int fd, uint64_t more)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | more };
	check(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a), "mount_setattr");
}

static void protect_root(void)
{
	if (order.mode != MODE_RUN)
		return;
	set_attributes(outer, MOUNT_ATTR_RDONLY);
	set_attributes(order.root, order.flags & FLAG_READONLY ? MOUNT_ATTR_RDONLY : 0);
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
		check(setrlimit((int)l->resource, &r), "setrlimit");
	}
}

static void drop_bounding_set(void)
{
	unsigned long cap = 0;
	while (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
		cap++;
	if (errno != EINVAL || cap == 0) // EINVAL: behind the last one
		fail("prctl", NULL, strerror(errno));
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

// allow_mounts: what is allowed below a folder is allowed in mounts below it
// too, so that inside a writable root a read-only volume is so by its mount.
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
	umask(022); // for the guest's files; the filter has no umask
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
