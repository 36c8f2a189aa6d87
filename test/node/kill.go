package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const killLimit = 10 * time.Second

// killCgroup kills what runs in the group and below it, and waits until nothing
// does.
func killCgroup(path string) error {
	for end := time.Now().Add(killLimit); ; {
		pids := processes(path)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("kill what runs in the cgroup %s: processes %v do not end", path, pids)
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL) // one that has just ended is no error
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// processes lists what runs in the group and below it, over all hierarchies.
func processes(path string) []int {
	var pids []int
	for _, h := range hierarchies() {
		for _, dir := range groupsBelow(filepath.Join(h, path)) {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				continue
			}
			for f := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}
