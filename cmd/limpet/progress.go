package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// drawEvery is how often a bar is drawn anew.
	drawEvery = 100 * time.Millisecond
	minBar    = 10
	maxBar    = 40
)

// progress shows how far something long is: a bar where it can be redrawn, a
// line per stage elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	width    int
	now      func() time.Time

	mu          sync.Mutex
	stage       string
	drawn       time.Time
	open        bool // a bar stands in the current line
	done, total int64
}

func (a *app) progress() *progress {
	return &progress{w: a.err, terminal: a.terminal, width: a.width, now: time.Now}
}

// set says that of a stage's total so much is done; a total of 0 is unknown.
func (p *progress) set(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stage != p.stage {
		p.endLocked()
		p.stage = stage
		p.drawn = time.Time{}
		if !p.terminal {
			_, _ = fmt.Fprintln(p.w, stage)
		}
	}
	p.done, p.total = done, total
	if p.terminal && (p.now().Sub(p.drawn) >= drawEvery || done == total) {
		p.drawLocked()
	}
}

// end closes the last line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
}

func (p *progress) endLocked() {
	if p.open {
		p.drawLocked()
		_, _ = fmt.Fprintln(p.w)
		p.open = false
	}
}

func (p *progress) drawLocked() {
	p.drawn, p.open = p.now(), true
	_, _ = fmt.Fprint(p.w, "\r", p.lineLocked(), "\x1b[K")
}

func (p *progress) lineLocked() string {
	if p.total <= 0 {
		return fmt.Sprintf("%s %s", p.stage, bytesText(p.done))
	}
	done := min(p.done, p.total)
	tail := fmt.Sprintf(" %3d%% %s", done*100/p.total, bytesText(p.total))
	n := min(maxBar, p.width-len(p.stage)-len(tail)-4)
	if n < minBar {
		return p.stage + tail
	}
	full := int(done * int64(n) / p.total)
	return p.stage + " [" + strings.Repeat("=", full) + strings.Repeat(" ", n-full) + "]" + tail
}

// counted reports what is read through it.
type counted struct {
	r     io.Reader
	p     *progress
	stage string
	done  int64
	total int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.done += int64(n)
	c.p.set(c.stage, c.done, c.total)
	return n, err
}
