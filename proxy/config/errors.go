package config

import (
	"fmt"
	"strings"
	"unicode"
)

// Error is one problem in a configuration file.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Width   int    // characters to underline, at least 1
	Key     string // "listen.port", "upstreams[1].name"; empty for a syntax error
	Message string // what is wrong
	Hint    string // what to do; may be empty
	Source  string // the line of the file
}

// Errors are all problems of one file, in the order of the file.
type Errors []Error

// Warning is something that is allowed and probably not meant.
type Warning Error

// Error prints the problem the way a compiler does.
func (e *Error) Error() string { return e.render("") }

// String prints the warning the way a compiler does.
func (w Warning) String() string { return (*Error)(&w).render("warning: ") }

// Error prints every problem, one after the other.
func (es Errors) Error() string {
	texts := make([]string, len(es))
	for i := range es {
		texts[i] = es[i].Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap lets errors.As find the first *Error.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i := range es {
		errs[i] = &es[i]
	}
	return errs
}

// excerptMax bounds what one problem shows of its line: a line of a binary
// file given by mistake can be the whole file.
const excerptMax = 160

func (e *Error) render(severity string) string {
	var b strings.Builder
	// A message quotes the file, which may say anything.
	fmt.Fprintf(&b, "%s:%d:%d: %s%s\n", e.File, e.Line, e.Column, severity, printable([]rune(e.Message)))
	number := fmt.Sprint(e.Line)
	source, start := excerpt(e.Source, e.Column-1)
	fmt.Fprintf(&b, "  %s | %s\n", number, printable(source))
	fmt.Fprintf(&b, "  %s | %s%s", strings.Repeat(" ", len(number)), blank(source[:start]),
		strings.Repeat("^", max(1, min(e.Width, len(source)-start))))
	if e.Hint != "" {
		fmt.Fprintf(&b, " %s", printable([]rune(e.Hint)))
	}
	return b.String()
}

// excerpt returns the part of a line around column, at most excerptMax
// characters, and where column is in it.
func excerpt(line string, column int) ([]rune, int) {
	runes := []rune(line)
	column = min(column, len(runes))
	first := 0
	if column > excerptMax/2 && len(runes) > excerptMax {
		first = column - excerptMax/2
	}
	return runes[first:min(len(runes), first+excerptMax)], column - first
}

// printable keeps a terminal safe from what a file contains.
func printable(runes []rune) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, string(runes))
}

// blank is what stands under runes so that the caret comes out below its
// character: tabs stay tabs.
func blank(runes []rune) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, string(runes))
}
