package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/limpet-cri/limpet/image"
)

const pushHelp = `
Makes an artifact of a WebAssembly module, in the form that the CNCF's working
group describes and other runtimes know, and pushes it to a registry. What the
artifact says of itself is read from the module.

  limpet push hello.wasm registry.example/demo/hello:v1

  --annotation KEY=VALUE   adds an annotation to the manifest; may be repeated
  --docker-config FILE     credentials, in the format of docker's config.json
  --hosts-dir DIR          a hosts.toml per registry (plain HTTP, certificates)
`

// defaultHosts is where limpetd looks by default, too.
const defaultHosts = "/etc/limpet/hosts"

func push(ctx context.Context, a *app, args []string) error {
	f := a.flags("push")
	o := image.PushOptions{Annotations: map[string]string{}}
	remote := a.remoteFlags(f)
	f.Func("annotation", "`KEY=VALUE` added to the manifest; may be repeated", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return fmt.Errorf("wanted KEY=VALUE")
		}
		o.Annotations[k] = v
		return nil
	})
	rest, err := a.parse(f, args, 2, "push [flags] FILE REF")
	if err != nil {
		return err
	}
	p := a.progress()
	o.RemoteOptions = remote(p)
	done, err := image.Push(ctx, rest[0], rest[1], o)
	p.end()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; name a WebAssembly module (.wasm) first, then the reference", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n%s (%s)\n", done.Ref, done.Repeat, bytesText(done.Size))
	return err
}

// remoteFlags are those of every command that asks a registry. What it returns
// makes the options once they are parsed.
func (a *app) remoteFlags(f *flag.FlagSet) func(*progress) image.RemoteOptions {
	docker, hosts := dockerConfig(), existing(defaultHosts)
	// What is named and is not there would be passed over in silence.
	there := func(to *string) func(string) error {
		return func(s string) error {
			*to = s
			_, err := os.Stat(s)
			return err
		}
	}
	f.Func("docker-config", "credentials, in the format of docker's config.json", there(&docker))
	f.Func("hosts-dir", "folder with a hosts.toml per registry", there(&hosts))
	return func(p *progress) image.RemoteOptions {
		return image.RemoteOptions{
			HostsDir: hosts, DockerConfig: docker,
			Progress: func(s image.Progress) {
				if s.Stage != "done" {
					p.set(s.Stage, s.Done, s.Total)
				}
			},
		}
	}
}

// dockerConfig is where docker and its like keep credentials, or "".
func dockerConfig() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return existing(filepath.Join(dir, "config.json"))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return existing(filepath.Join(home, ".docker", "config.json"))
}

// existing returns the path if there is something, else "".
func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
