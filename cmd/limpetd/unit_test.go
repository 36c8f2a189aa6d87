package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// unit reads the systemd unit: key → values, comments left out.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("../../packaging/limpetd.service")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			found[k] = append(found[k], v)
		}
	}
	return found
}

// A restart of limpetd must not touch a pod.
func TestRestartLeavesPods(t *testing.T) {
	s := unit(t)
	for key, want := range map[string]string{"KillMode": "process", "Delegate": "yes", "Type": "notify", "OOMPolicy": "continue"} {
		if got := s[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %v, want %s", key, got, want)
		}
	}
	if s["RuntimeDirectory"] != nil {
		t.Error("RuntimeDirectory= removes the sockets and namespaces of running pods when limpetd stops")
	}
}

// Nothing in the unit may give the daemon a view of the node's mounts that
// differs from the kubelet's.
func TestMountsAreTheNodes(t *testing.T) {
	s := unit(t)
	for _, key := range []string{
		"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateMounts", "PrivateDevices", "ReadWritePaths", "ReadOnlyPaths",
		"InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths", "ProtectProc", "ProcSubset",
		"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectHostname",
		"MountFlags", "RootDirectory", "RootImage", "DynamicUser", "PrivateNetwork", "PrivateIPC", "PrivateUsers", "ProtectClock",
		"StateDirectory", "CacheDirectory", "LogsDirectory", "ConfigurationDirectory", "MemoryDenyWriteExecute",
		"RestrictSUIDSGID", "RestrictNamespaces", "SystemCallFilter", "IPAddressDeny", "RestrictFileSystems",
	} {
		if s[key] != nil {
			t.Errorf("%s= may hide the node's mounts, devices or network from pods, or break the hosts", key)
		}
	}
}

// What limpetd and the constructor of a host do needs these. What is not named
// is dropped, what a kernel adds later too.
func TestCapabilities(t *testing.T) {
	got := unit(t)["CapabilityBoundingSet"]
	if len(got) != 1 || strings.HasPrefix(got[0], "~") {
		t.Fatalf("CapabilityBoundingSet is %v, want one list of what is kept", got)
	}
	kept := strings.Fields(got[0])
	for _, c := range []string{
		"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_RESOURCE", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", "CAP_KILL",
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE",
	} {
		if !slices.Contains(kept, c) {
			t.Errorf("%s is dropped", c)
		}
	}
	for _, c := range []string{"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_MKNOD"} {
		if slices.Contains(kept, c) {
			t.Errorf("%s is kept, and nothing needs it", c)
		}
	}
}

// A start after every end, a sign of life, and no reload that would do nothing.
func TestUnitLives(t *testing.T) {
	s := unit(t)
	if got := s["Restart"]; len(got) != 1 || got[0] != "always" {
		t.Errorf("Restart is %v, want always", got)
	}
	if s["WatchdogSec"] == nil {
		t.Error("no WatchdogSec: a limpetd that hangs is not noticed")
	}
	if s["ExecReload"] != nil {
		t.Error("ExecReload: limpetd reads its configuration at its start only")
	}
}
