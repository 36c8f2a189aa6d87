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
