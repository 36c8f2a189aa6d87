package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The crash tests kill the daemon at checkpoints. These tests see to it that
// there is one between every two acts: an act is a call that changes something
// beside the daemon, or a change of one object's folder on disk. Whoever adds a
// step without a checkpoint fails here.

// steps watches a node.
type steps struct {
	*node
	mu   sync.Mutex
	disk map[string]string
	acts []string // since the last checkpoint
	last string
}

func watchSteps(t *testing.T) *steps {
	s := &steps{node: newNode(t)}
	s.cfg.Checkpoint = s.checkpoint
	s.world.acts = s.act
	s.disk = s.look()
	return s
}

// look returns what is on disk, by object: a record, the other files of a
// folder, or a folder of logs.
func (s *steps) look() map[string]string {
	base := filepath.Dir(s.cfg.Root)
	found := map[string]string{}
	_ = filepath.WalkDir(base, func(path string, _ fs.DirEntry, err error) error {
		fi, statErr := os.Lstat(path)
		if err != nil || statErr != nil || path == base {
			return nil // or it went away while we looked
		}
		parts := strings.Split(strings.TrimPrefix(path, base+"/"), "/")
		if len(parts) < 3 || fi.IsDir() && parts[0] != "logs" && parts[1] != dirLayers {
			return nil // a folder is made with the first file in it
		}
		object := parts[1] + "/" + parts[2]
		if name := strings.TrimSuffix(filepath.Base(path), ".t"); name == fileRecord || name == fileState {
			object += "/" + name
		}
		found[object] += fmt.Sprintf("%s %s %d %d;", path, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	return found
}

// settle turns changes on disk into acts. Preconditions: mu held.
func (s *steps) settle() {
	now := s.look()
	for _, object := range slices.Sorted(maps.Keys(now)) {
		if s.disk[object] != now[object] {
			s.acts = append(s.acts, "writing "+object)
		}
	}
	removed := map[string]bool{}
	for object := range s.disk {
		if _, ok := now[object]; !ok {
			folder := strings.Split(object, "/")
			removed["removing "+folder[0]+"/"+folder[1]] = true
		}
	}
	s.acts = append(s.acts, slices.Sorted(maps.Keys(removed))...)
	s.disk = now
}

func (s *steps) act(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.acts = append(s.acts, what)
}

func (s *steps) checkpoint(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.judge(step)
}

// judge fails if there was more than one act. Preconditions: mu held.
func (s *steps) judge(step string) {
	acts := s.acts
	if len(acts) == 2 && acts[0] == "host removed" && strings.HasPrefix(acts[1], "removing containers/") {
		acts = acts[:1] // it takes the folder along
	}
	if len(acts) > 1 {
		s.t.Errorf("between the checkpoints %s and %s: %s", s.last, step, strings.Join(acts, ", then "))
	}
	s.acts, s.last = nil, step
}

// rest is the end of an operation, where the daemon is at rest.
func (s *steps) rest(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.judge("the end of " + what)
}

// pod makes a pod whose logs are looked at too.
func (s *steps) pod(m *Manager, name string) string {
	s.t.Helper()
	c := podConfig(name)
	c.LogDirectory = filepath.Join(filepath.Dir(s.cfg.Root), "logs", name)
	id, err := m.RunPodSandbox(s.t.Context(), c, "")
	must(s.t, "run", err)
	s.rest("run")
	return id
}

func (s *steps) container(m *Manager, pod string) (string, error) {
	c := containerConfig("c")
	c.LogPath = "c/0.log"
	id, err := m.CreateContainer(s.t.Context(), request(pod, c))
	s.rest("create")
	if err == nil {
		// As a container of an image with files has.
		must(s.t, "layer", os.Mkdir(m.layerDir(id), 0o700))
		s.mu.Lock()
		s.disk = s.look()
		s.mu.Unlock()
	}
	return id, err
}

func TestCheckpointsOfLives(t *testing.T) {
	for _, rude := range []bool{false, true} {
		s := watchSteps(t)
		m := s.start()
		pod := s.pod(m, "web")
		ctr, err := s.container(m, pod)
		must(t, "create", err)
		must(t, "start", m.StartContainer(t.Context(), ctr))
		s.rest("start")
		if !rude {
			must(t, "stop", m.StopContainer(t.Context(), ctr, 30))
			s.rest("stop")
			must(t, "remove", m.RemoveContainer(t.Context(), ctr))
			s.rest("remove")
			must(t, "stop sandbox", m.StopPodSandbox(t.Context(), pod))
			s.rest("stop sandbox")
		}
		must(t, "remove sandbox", m.RemovePodSandbox(t.Context(), pod))
		s.rest("remove sandbox")
	}
}

func TestCheckpointsOfFailures(t *testing.T) {
	broken := errors.New("broken")
	for _, act := range []string{"network", "prepare", "host", "start"} {
		s := watchSteps(t)
		m := s.start()
		s.fail[act] = broken
		if act == "network" {
			_, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
			s.rest("run")
			if !errors.Is(err, broken) {
				t.Errorf("%s: %v", act, err)
			}
			continue
		}
		pod := s.pod(m, "web")
		ctr, err := s.container(m, pod)
		if act == "start" {
			must(t, "create", err)
			err = m.StartContainer(t.Context(), ctr)
			s.rest("start")
		}
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", act, err)
		}
	}
}

// What a restart finds, one thing at a time: recovery works on several at once.
func TestCheckpointsOfRecovery(t *testing.T) {
	for name, change := range map[string]func(s *steps, m *Manager, pod, ctr string){
		"a half made sandbox": func(s *steps, m *Manager, pod, ctr string) {
			clear(s.hosts)
			clear(s.leases)
			must(t, "layer", os.RemoveAll(m.layerDir(ctr)))
			must(t, "container", os.RemoveAll(m.containerDir(ctr)))
			must(t, "state", os.Remove(filepath.Join(m.sandboxDir(pod), fileState)))
		},
		"a half made container": func(s *steps, m *Manager, _, ctr string) {
			must(t, "state", os.Remove(filepath.Join(m.containerDir(ctr), fileState)))
		},
		"a host that ended": func(s *steps, m *Manager, _, ctr string) { s.host(ctr).end(3, "Error") },
		"a host that is gone": func(s *steps, m *Manager, _, ctr string) {
			delete(s.hosts, ctr)
		},
		"a network without a sandbox": func(s *steps, m *Manager, _, _ string) { s.nets[newID()] = true },
		"a network that is gone":      func(s *steps, m *Manager, _, _ string) { clear(s.nets) },
		"a lease without a container": func(s *steps, m *Manager, _, _ string) { s.leases[newID()] = testImage },
		"a layer without a container": func(s *steps, m *Manager, _, _ string) {
			must(t, "layer", os.Mkdir(m.layerDir(newID()), 0o700))
		},
		"a socket without a container": func(s *steps, m *Manager, _, _ string) {
			must(t, "socket", os.WriteFile(m.socket(newID()), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := watchSteps(t)
			m := s.start()
			pod := s.pod(m, "web")
			ctr, err := s.container(m, pod)
			must(t, "create", err)
			must(t, "close", m.Close())
			change(s, m, pod, ctr)
			s.mu.Lock()
			s.disk, s.acts = s.look(), nil
			s.mu.Unlock()
			s.start()
			s.rest("recovery")
		})
	}
}
