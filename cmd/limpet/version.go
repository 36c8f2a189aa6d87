package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	goruntime "runtime"
	"runtime/debug"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const versionHelp = `
Prints the version of limpet, and those of the limpetd and the engine of this
node if it answers. The engine's line says until when its authors mend it.
`

func showVersion(ctx context.Context, a *app, args []string) error {
	if _, err := a.parse(a.flags("version"), args, 0, "version"); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.out, "limpet  %s (%s)\n", version(), goruntime.Version())
	err := a.ask(ctx, func(ctx context.Context, d *daemon) error {
		r, err := d.runtime.Status(ctx, &runtime.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		details := map[string]string{}
		if text := r.GetInfo()["limpet"]; text != "" {
			if err := json.Unmarshal([]byte(text), &details); err != nil {
				return fmt.Errorf("status of the server: %w", err)
			}
		}
		_, _ = fmt.Fprintf(a.out, "limpetd %s\nengine  %s\n", details["version"], details["engine"])
		return nil
	})
	if err != nil {
		// That no limpetd runs here is an answer, not a failure.
		_, _ = fmt.Fprintf(a.out, "limpetd not asked: %v\n", err)
		if e := a.hostEngine(ctx); e != "" {
			_, _ = fmt.Fprintf(a.out, "engine  %s, in %s\n", e, a.host)
		}
	}
	return nil
}

// hostEngine is what the limpet-host beside this program says of its engine,
// or "" where there is none: limpet itself links no engine.
func (a *app) hostEngine(ctx context.Context) string {
	if existing(a.host) == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, a.host, "version").Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	return strings.TrimSpace(string(out))
}

// release is the version that make build VERSION=... stamps in, for builds that
// git cannot tell it to.
var release string

// unversioned is a build outside of git without one: a semantic version,
// because the kubelet wants that.
const unversioned = "0.0.0-unversioned"

// version is what the build was stamped with: the release, else what git says,
// a tag or a pseudo-version with the commit.
func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		return unversioned
	}
	return strings.TrimPrefix(v, "v")
}
