// Package docs reads the pages of this repository as a stranger would type
// them: their commands, names and links. Its tests hold the pages to the tree
// and to the built programs; those of test/e2e hold them to crictl.
//
// It judges names, not sentences: a page can still be wrong in its own words.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Page is one Markdown file, taken apart.
type Page struct {
	File   string // from the root of the repository
	Blocks []Block
	Spans  []Span // `code` within sentences
	Links  []Span // targets of [text](target)
	Text   string
}

// Block is a fenced or an indented block; an indented one has no language.
type Block struct {
	Line     int
	Language string
	Fenced   bool
	Lines    []string
}

// Span is a piece of a line.
type Span struct {
	Line int
	Text string
}

// Command is something that a page tells its reader to type.
type Command struct {
	Where string // file:line
	Words []string
}

func (c Command) String() string { return c.Where + ": " + strings.Join(c.Words, " ") }

// Pages reads the Markdown files of the root and of docs.
func Pages(root string) ([]Page, error) {
	var pages []Page
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			name, err := filepath.Rel(root, f)
			if err != nil {
				return nil, err
			}
			pages = append(pages, parse(name, string(b)))
		}
	}
	if len(pages) == 0 {
		return nil, fmt.Errorf("%s has no pages", root)
	}
	return pages, nil
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// parse takes a page apart. Spans may go over the end of a line.
func parse(file, text string) Page {
	p := Page{File: file, Text: text}
	var prose strings.Builder // the text without its blocks, line by line
	var open *Block
	for i, l := range strings.Split(text, "\n") {
		rest, fence := strings.CutPrefix(l, "```")
		switch {
		case fence && open != nil && open.Fenced:
			p.Blocks, open = append(p.Blocks, *open), nil
			l = ""
		case open != nil && open.Fenced:
			open.Lines = append(open.Lines, l)
			l = ""
		case fence:
			open = &Block{Line: i + 1, Language: rest, Fenced: true}
			l = ""
		case strings.HasPrefix(l, "    "):
			if open == nil {
				open = &Block{Line: i}
			}
			open.Lines = append(open.Lines, l[4:])
			l = ""
		case open != nil:
			p.Blocks, open = append(p.Blocks, *open), nil
		}
		prose.WriteString(l + "\n")
	}
	if open != nil {
		p.Blocks = append(p.Blocks, *open)
	}
	p.Spans, p.Links = find(prose.String(), codeSpan), find(prose.String(), link)
	return p
}

func find(text string, what *regexp.Regexp) []Span {
	var found []Span
	for _, m := range what.FindAllStringSubmatchIndex(text, -1) {
		found = append(found, Span{1 + strings.Count(text[:m[0]], "\n"), strings.Join(strings.Fields(text[m[2]:m[3]]), " ")})
	}
	return found
}

// Commands returns every command of a page that begins with one of the
// programs, from its blocks and from its sentences.
func (p Page) Commands(programs ...string) []Command {
	var found []Command
	take := func(line int, text string) {
		if before, _, ok := strings.Cut(text, " #"); ok {
			text = before
		}
		if before, _, ok := strings.Cut(strings.TrimSpace(text), "   "); ok {
			text = before // what stands in a column beside it is an explanation
		}
		if strings.ContainsAny(text, "─│►") {
			return // a picture
		}
		for part := range strings.SplitSeq(text, "&&") {
			words := strings.Fields(part)
			if len(words) > 0 {
				if _, inner, ok := strings.Cut(words[0], "=$("); ok {
					words[0] = inner
					words[len(words)-1] = strings.TrimSuffix(words[len(words)-1], ")")
				}
			}
			for _, name := range programs {
				if len(words) > 1 && words[0] == name {
					found = append(found, Command{fmt.Sprintf("%s:%d", p.File, line), words})
				}
			}
		}
	}
	for _, b := range p.Blocks {
		if b.Language != "" && b.Language != "sh" {
			continue
		}
		for i, l := range b.Lines {
			take(b.Line+i+1, l)
		}
	}
	for _, s := range p.Spans {
		take(s.Line, s.Text)
	}
	return found
}
