package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

const columns = "%-7s %-36s %-7s %4s  %-10s %10s  %9s\n"

const legend = `
Six pods, one after the other. STARTED IN is the time that RunPodSandbox,
CreateContainer and StartContainer took together, RAN FOR that from the guest's
start to its end. "log" is what the guest wrote (kubectl logs), "message" what
kubectl describe would show. An exit code above 128 is 128 and the number of a
signal, as in a shell: 134 for an abort, 143 for SIGTERM.

`

func header() {
	fmt.Printf(columns, "POD", "WHAT IT DOES", "STATE", "EXIT", "REASON", "STARTED IN", "RAN FOR")
}

// row prints what became of the pod and reports whether that is what should.
func (a *act) row() bool {
	s := a.status
	state := strings.ToLower(strings.TrimPrefix(s.GetState().String(), "CONTAINER_"))
	ran := time.Duration(s.GetFinishedAt() - s.GetStartedAt())
	fmt.Printf(columns, a.name, a.about, state, fmt.Sprint(s.GetExitCode()), s.GetReason(), short(a.pod.Times.Total()), short(ran))
	for _, l := range a.log {
		fmt.Printf("        log      %s\n", l)
	}
	for _, l := range strings.Split(strings.TrimSpace(s.GetMessage()), "\n") {
		if l != "" {
			fmt.Printf("        message  %s\n", l)
		}
	}
	if a.stop {
		fmt.Printf("        stopped  in %s (grace period 10 s)\n", short(a.stopTime))
	}
	good := s.GetExitCode() == a.wantCode && s.GetReason() == a.wantReason
	if !good {
		fmt.Printf("        WRONG    should have been exit %d, %s\n", a.wantCode, a.wantReason)
	}
	return good
}

// short writes a duration as people say it.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// logLines reads a CRI log and returns its text, partial lines joined.
func logLines(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []string
	open := ""
	for _, l := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		f := strings.SplitN(l, " ", 4)
		if len(f) != 4 {
			continue
		}
		if open += f[3]; f[2] == "F" {
			lines, open = append(lines, open), ""
		}
	}
	return lines, nil
}

func awaitLine(ctx context.Context, file, want string) error {
	for {
		lines, err := logLines(file)
		if err == nil && strings.Contains(strings.Join(lines, "\n"), want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q never came up in %s: %w", want, file, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
