// Package corpus reads the rules of HTTP/1 that Atlas keeps: the archives of
// proxy/h1/testdata, whose README describes them. It reads files and nothing
// of Atlas's code, so that whoever measures with the corpus measures every
// server by the same text.
//
// It refuses what it does not understand, with file and case: a notation that
// was skipped would be a rule that nobody checks. What it returns is not
// written afterwards and may be shared between goroutines.
package corpus

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"golang.org/x/tools/txtar"
)

// Kind says what the bytes of a case are.
type Kind string

// The kinds, which are the folders of the corpus.
const (
	Request  Kind = "request"  // what a client sends
	Chunked  Kind = "chunked"  // a request body in chunks
	Response Kind = "response" // what an upstream answers to GET
)

// Kinds are all of them, in the order of a table.
var Kinds = []Kind{Request, Chunked, Response}

// Rule is one file of the corpus.
type Rule struct {
	Kind  Kind
	Name  string // of the file, without its extension
	File  string // from the corpus's folder
	About string // why the rule exists
	Where []Section
	Cases []Case
}

// Section is a place in a standard.
type Section struct {
	RFC   string // its number
	Parts string // "3.2.2", or "6.1 to 6.3"
}

// Case is a message, or a part of one, and what must come of it.
type Case struct {
	Name  string
	Input []byte
	Want  Want
}

// Read returns every rule of a corpus, by kind and then by name.
func Read(fsys fs.FS) ([]*Rule, error) {
	var rules []*Rule
	for _, kind := range Kinds {
		files, err := fs.Glob(fsys, string(kind)+"/*.txtar")
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("the corpus has no %s/*.txtar", kind)
		}
		for _, file := range files {
			text, err := fs.ReadFile(fsys, file)
			if err != nil {
				return nil, err
			}
			rule, err := parseRule(kind, file, text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

func parseRule(kind Kind, file string, text []byte) (*Rule, error) {
	archive := txtar.Parse(text)
	about, where, err := splitComment(string(archive.Comment))
	if err != nil {
		return nil, err
	}
	rule := &Rule{
		Kind: kind, Name: strings.TrimSuffix(path.Base(file), ".txtar"), File: file,
		About: about, Where: where,
	}
	for i := 0; i < len(archive.Files); i += 2 {
		name, ok := strings.CutSuffix(archive.Files[i].Name, ".in")
		if !ok || i+1 == len(archive.Files) || archive.Files[i+1].Name != name+".want" {
			return nil, fmt.Errorf("section %s: want NAME.in and then NAME.want", archive.Files[i].Name)
		}
		input, err := unescape(string(archive.Files[i].Data))
		if err != nil {
			return nil, fmt.Errorf("%s.in: %w", name, err)
		}
		want, err := parseWant(kind, string(archive.Files[i+1].Data))
		if err != nil {
			return nil, fmt.Errorf("%s.want: %w", name, err)
		}
		rule.Cases = append(rule.Cases, Case{Name: name, Input: input, Want: want})
	}
	if len(rule.Cases) == 0 {
		return nil, fmt.Errorf("no cases")
	}
	return rule, nil
}

// A section is named as in "RFC 9112 section 3.2" or "RFC 9112 sections 6.1 to 6.3".
var sectionNamed = regexp.MustCompile(`RFC (\d+) sections? (\d[\d.]*\d|\d)((?: (?:to|and) (?:\d[\d.]*\d|\d))?)`)

// splitComment divides the comment of an archive: why, and in its last
// paragraph where that is written.
func splitComment(comment string) (about string, where []Section, err error) {
	comment = strings.TrimSpace(comment)
	at := strings.LastIndex(comment, "\n\n")
	if at < 0 {
		return "", nil, fmt.Errorf("the comment is not two paragraphs, why and where")
	}
	about = strings.ReplaceAll(comment[:at], "\n", " ")
	last := strings.ReplaceAll(comment[at+2:], "\n", " ")
	for _, found := range sectionNamed.FindAllStringSubmatch(last, -1) {
		where = append(where, Section{RFC: found[1], Parts: found[2] + found[3]})
	}
	if len(where) == 0 {
		return "", nil, fmt.Errorf("the last paragraph of the comment names no section of an RFC: %q", last)
	}
	return about, where, nil
}
