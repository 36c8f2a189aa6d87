package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/unpack"
)

// maxPasswd bounds what is read of an image's /etc/passwd and /etc/group.
const maxPasswd = 1 << 20

// tree is an image's file system, opened for looking at it.
type tree struct{ dir *os.File }

func (s *Service) openTree(ctx context.Context, view string) (tree, error) {
	ms, err := s.store.Snapshots().Mounts(content.Context(ctx), view)
	if err != nil {
		return tree{}, fmt.Errorf("root file system of the image: %w", err)
	}
	d, err := unpack.Folder(ms)
	if err != nil {
		return tree{}, err
	}
	return tree{d}, nil
}

func (t tree) Close() error { return t.dir.Close() }

// open opens a file as a guest would see it: links are followed inside the
// tree, and lead nowhere else. Only regular files are opened.
func (t tree) open(name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(t.dir.Fd()), strings.TrimLeft(name, "/"), &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

var errNotRegular = errors.New("not a regular file")

// survey finds the core modules of a file system, and who the user is that
// its config names ("UID:GID", or "" when nobody is named or known).
func (s *Service) survey(ctx context.Context, view, user string) ([]Module, string, error) {
	t, err := s.openTree(ctx, view)
	if err != nil {
		return nil, "", err
	}
	defer t.Close()
	modules, err := t.modules(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("look for modules: %w", err)
	}
	return modules, t.user(user), nil
}

// modules walks the tree and returns its core modules, at most MaxModules of
// at most MaxModuleBytes each. The others are found when they are asked for.
func (t tree) modules(ctx context.Context) ([]Module, error) {
	root := fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd())
	var found []Module
	err := filepath.WalkDir(root+"/.", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
		if len(name) > maxLabel/2 {
			return nil
		}
		dg, ok, err := t.module(name)
		if err != nil || !ok {
			return err
		}
		found = append(found, Module{Path: name, Digest: dg.String()})
		if len(found) == MaxModules {
			return filepath.SkipAll
		}
		return nil
	})
	return found, err
}

// module says whether a file is a core module within bounds, and its digest.
func (t tree) module(name string) (digest.Digest, bool, error) {
	f, err := t.open(name)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	c, size, err := sniffFile(f)
	if err != nil || c != artifact.Module || size > MaxModuleBytes {
		return "", false, err
	}
	d, err := digest.FromReader(io.NewSectionReader(f, 0, size))
	return d, err == nil, err
}

func sniffFile(f *os.File) (artifact.Content, int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return artifact.Unknown, 0, err
	}
	c, err := artifact.Sniff(f, fi.Size())
	return c, fi.Size(), err
}

// user resolves what a config says, by the image's own files.
func (t tree) user(text string) string {
	name, group, _ := strings.Cut(text, ":")
	if name == "" {
		return ""
	}
	uid, numeric := id(name)
	gid := int64(-1)
	if !numeric || group == "" {
		entry := t.passwd("/etc/passwd", func(f []string) bool {
			return len(f) >= 4 && (f[0] == name && !numeric || numeric && f[2] == name)
		})
		if entry != nil {
			if n, ok := id(entry[2]); ok {
				uid, numeric = n, true
			}
			if n, ok := id(entry[3]); ok {
				gid = n
			}
		}
	}
	if !numeric {
		return ""
	}
	if group != "" {
		n, ok := id(group)
		if !ok {
			if entry := t.passwd("/etc/group", func(f []string) bool { return len(f) >= 3 && f[0] == group }); entry != nil {
				n, ok = id(entry[2])
			}
		}
		if !ok {
			return ""
		}
		gid = n
	}
	if gid < 0 {
		gid = 0
	}
	return strconv.FormatInt(uid, 10) + ":" + strconv.FormatInt(gid, 10)
}

// passwd finds a line of a file whose fields match.
func (t tree) passwd(file string, match func([]string) bool) []string {
	f, err := t.open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	sc := bufio.NewScanner(io.LimitReader(f, maxPasswd))
	for sc.Scan() {
		if fields := strings.Split(sc.Text(), ":"); match(fields) {
			return fields
		}
	}
	return nil
}

// id reads a user's or group's number.
func id(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n), err == nil && n != 1<<32-1
}

// runConfig is what the image says, with the defaults of ours.
func (s *Service) runConfig(a artifact.Artifact, resolved string) RunConfig {
	return runConfig(a, resolved, s.cfg.DefaultUID)
}

func runConfig(a artifact.Artifact, resolved string, defaultUID int64) RunConfig {
	c := a.Config.Config
	r := RunConfig{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal}
	if len(r.Entrypoint) == 0 && len(r.Cmd) == 0 && len(a.Modules) > 0 {
		r.Entrypoint = []string{path.Base(a.Modules[0].Title)}
	}
	r.UID, r.GID = defaultUID, defaultUID
	name, group, _ := strings.Cut(c.User, ":")
	if name == "" {
		return r
	}
	if u, g, ok := strings.Cut(resolved, ":"); ok {
		uid, ok1 := id(u)
		gid, ok2 := id(g)
		if ok1 && ok2 {
			r.UID, r.GID = uid, gid
			return r
		}
	}
	if uid, ok := id(name); ok {
		gid, numeric := id(group)
		if group == "" || numeric {
			r.UID, r.GID = uid, gid
			return r
		}
	}
	// A name that nothing explains: who asks must be told, not guess.
	r.UID, r.GID, r.Username = -1, -1, c.User
	return r
}
