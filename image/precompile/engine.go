package precompile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/limpet-cri/limpet/image/content"
)

// engine is a build of the engine with a set of proposals.
type engine struct{ key, proposals string }

// name of a module's code: what was compiled, by which engine, how.
func (e engine) name(module digest.Digest) string {
	h := sha256.Sum256([]byte("limpet code 1\n" + module.String() + "\n" + e.key + "\n" + e.proposals + "\n"))
	return hex.EncodeToString(h[:])
}

// prefix of the labels that keep this engine's code. It tells the code of
// other engines apart without knowing their modules.
func (e engine) prefix() string {
	h := sha256.Sum256([]byte("limpet engine 1\n" + e.key + "\n" + e.proposals + "\n"))
	return labelCode + "." + hex.EncodeToString(h[:6]) + "."
}

// engine asks the compiler for its key, once for each set of proposals.
func (c *Cache) engine(ctx context.Context, proposals []string) (engine, error) {
	proposals = slices.Compact(slices.Sorted(slices.Values(proposals)))
	p := strings.Join(proposals, " ")
	c.mu.Lock()
	e, ok := c.engines[p]
	c.mu.Unlock()
	if ok {
		return e, nil
	}
	key, err := c.compiler.EngineKey(ctx, proposals)
	if err != nil {
		return e, fmt.Errorf("ask the engine for its key: %w", err)
	}
	e = engine{key, p}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engines[p] = e
	return e, nil
}

// label makes the manifest keep the code.
func (c *Cache) label(ctx context.Context, owner digest.Digest, e engine, name string) error {
	ctx = content.Context(ctx)
	key := e.prefix() + name[:16]
	i, err := c.store.Blobs().Info(ctx, owner)
	if err != nil {
		return fmt.Errorf("label manifest %s: %w", owner, err)
	}
	if i.Labels[key] == name {
		return nil
	}
	return c.relabel(ctx, owner, map[string]string{key: name})
}

// relabel sets labels, and takes those away that are "".
func (c *Cache) relabel(ctx context.Context, owner digest.Digest, labels map[string]string) error {
	var fields []string
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	if _, err := c.store.Blobs().Update(ctx, blobs.Info{Digest: owner, Labels: labels}, fields...); err != nil {
		return fmt.Errorf("label manifest %s: %w", owner, err)
	}
	return nil
}

// Retire takes the labels off code that neither the default engine nor one
// with the given sets of proposals would load: code of an older build, or of a
// profile that is gone. The collector removes it. It says how many labels
// there were.
func (c *Cache) Retire(ctx context.Context, sets [][]string) (int, error) {
	ctx = content.Context(ctx)
	owners := map[digest.Digest][]string{}
	err := c.store.Blobs().Walk(ctx, func(i blobs.Info) error {
		for k := range i.Labels {
			if strings.HasPrefix(k, labelCode+".") {
				owners[i.Digest] = append(owners[i.Digest], k)
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look for code of other engines: %w", err)
	}
	if len(owners) == 0 {
		return 0, nil // asking an engine costs a process
	}
	var current []string
	for _, p := range append([][]string{nil}, sets...) {
		e, err := c.engine(ctx, p)
		if err != nil {
			return 0, err
		}
		current = append(current, e.prefix())
	}
	n := 0
	for owner, keys := range owners {
		old := map[string]string{}
		for _, k := range keys {
			if !slices.ContainsFunc(current, func(p string) bool { return strings.HasPrefix(k, p) }) {
				old[k] = ""
			}
		}
		if len(old) == 0 {
			continue
		}
		if err := c.relabel(ctx, owner, old); err != nil && !errdefs.IsNotFound(err) { // collected meanwhile
			return n, err
		}
		n += len(old)
	}
	return n, nil
}
