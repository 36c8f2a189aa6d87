package main

import (
	"os"
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
		"RestrictSUIDSGID", "RestrictNamespaces", "SystemCallFilter",
	} {
		if s[key] != nil {
			t.Errorf("%s= may hide the node's mounts, devices or network from pods, or break the hosts", key)
		}
	}
}
