package confine

import "golang.org/x/sys/unix"

// LandlockABI returns the version of Landlock that the kernel speaks, 0 if
// none. Below MinLandlock hosts run without it: version 1 refuses every rename
// between folders, which guests need.
func LandlockABI() int {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	r, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if e != 0 {
		return 0
	}
	return int(r)
}

// MinLandlock is the first version that hosts use.
const MinLandlock = 2

// LandlockLacks says what hosts do without under a version of Landlock, with
// the kernel that has it; the other steps of the confinement hold all the same.
func LandlockLacks(abi int) []string {
	if abi < MinLandlock {
		return []string{"Landlock (wanted: Linux 5.19): access to files is bounded by mounts and file modes alone"}
	}
	var lacks []string
	for _, l := range []struct {
		since int
		text  string
	}{
		{3, "Landlock's rule for truncation (wanted: Linux 6.2): mounts alone keep read-only files from it"},
		{4, "Landlock's rules for TCP (wanted: Linux 6.7): a host may bind any port of its pod"},
		{5, "Landlock's rule for ioctl (wanted: Linux 6.10): mounts alone keep hosts from devices"},
		{6, "Landlock's scopes (wanted: Linux 6.12): namespaces and seccomp alone keep hosts from others' sockets and processes"},
	} {
		if abi < l.since {
			lacks = append(lacks, l.text)
		}
	}
	return lacks
}
