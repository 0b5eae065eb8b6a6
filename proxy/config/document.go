package config

import (
	"bytes"
	"errors"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// span is a piece of the file, in bytes.
type span struct{ start, end int }

// literal is a value as it stands in the file.
type literal struct {
	kind unstable.Kind
	text string // decoded, for a string; as written, for other scalars
	at   span
	list []literal // of an array

	// What expand adds to a string.
	written   string   // as it was before
	single    bool     // nothing but one variable
	variables []string // that the environment gave the values of
	secrets   []string // those values
}

// node is one thing the file says: a table header, or a key with its value.
type node struct {
	path   string // keys joined by dots, quoted where they are not bare
	name   string // the last key
	key    span
	header bool
	array  bool    // of a header: [[path]], or an element of path = [{...}]
	inline bool    // of a header: written as a value
	value  literal // of a key
}

// document is the text with its lines and what it says, in the order of the
// file.
type document struct {
	file  string
	text  []byte
	lines []int // offset of each line
	nodes []node
}

func newDocument(file string, text []byte) *document {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // Windows editors begin a file with it
	d := &document{file: file, text: text, lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	return d
}

// syntaxMax bounds the syntax errors told at once, and the passes over the text.
const syntaxMax = 20

// read splits the text into nodes. Behind a syntax error it goes on only where that
// is one of its line alone, which is then left out; otherwise the nodes end there.
// Walking the syntax tree instead of decoding into a struct is what finds every
// problem at once, each with its place; a decoder stops at its first wrong type.
func (d *document) read() (errs Errors) {
	text := d.text
	for {
		found := d.readAll(text)
		if found == nil {
			return errs
		}
		errs = append(errs, *found)
		first, last := d.lineSpan(found.Line - 1)
		if len(errs) == syntaxMax || !wrongAlone(text[first:last]) {
			return errs
		}
		text = bytes.Clone(text)
		copy(text[first:last], bytes.Repeat([]byte(" "), last-first))
	}
}

// wrongAlone reports a line that could be a key with its value and has an error that
// no other line has a part in.
func wrongAlone(line []byte) bool {
	key, _, assigned := bytes.Cut(line, []byte("="))
	key = bytes.TrimSpace(key)
	if !assigned || len(key) == 0 || bytes.ContainsAny(key, "[]{}#,\"'") || bytes.Contains(line, []byte(`"""`)) ||
		bytes.Contains(line, []byte("'''")) || bytes.ContainsAny(line, "[{") {
		return false
	}
	var p unstable.Parser
	p.Reset(line)
	for p.NextExpression() {
		continue
	}
	return p.Error() != nil
}

// readAll reads nodes up to the first syntax error, if there is one. The text is
// that of the document, but for lines that are left out.
func (d *document) readAll(text []byte) *Error {
	d.nodes = nil
	var p unstable.Parser
	p.Reset(text)
	var table string
	for p.NextExpression() {
		e := p.Expression()
		path, name, at := keyOf("", e.Key())
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = path
			d.nodes = append(d.nodes, node{path: path, name: name, key: at, header: true,
				array: e.Kind == unstable.ArrayTable})
		case unstable.KeyValue:
			d.readValue(table, e)
		}
	}
	var syntax *unstable.ParserError
	if errors.As(p.Error(), &syntax) {
		raw := p.Range(syntax.Highlight)
		at := span{int(raw.Offset), int(raw.Offset + raw.Length)}
		return d.problem(at, "", syntax.Message, d.syntaxHint(syntax.Message))
	}
	return nil
}

// syntaxHint guesses from the parser's message what was meant.
func (d *document) syntaxHint(message string) string {
	switch {
	case !utf8.Valid(d.text) || bytes.IndexByte(d.text, 0) >= 0:
		return "this is not a text file in UTF-8"
	case strings.HasPrefix(strings.TrimSpace(string(d.text)), "{"):
		return "this looks like JSON: a configuration is TOML, [listen] and below it port = 8080"
	case strings.HasPrefix(message, "expected '='"):
		return "write [listen] for a table, and below it port = 8080"
	case strings.HasPrefix(message, "unexpected character"), strings.HasPrefix(message, "expected keyword"),
		strings.HasPrefix(message, "expected newline"), strings.HasPrefix(message, "invalid"):
		return `a value is a number, true, false, or a string in quotes`
	}
	return ""
}

// readValue adds a key and what is below it: inline tables and arrays of them
// say the same as tables with a header.
func (d *document) readValue(table string, e *unstable.Node) {
	path, name, at := keyOf(table, e.Key())
	v := e.Value()
	value := literal{kind: v.Kind, text: string(v.Data), at: d.valueSpan(e, at)}
	switch {
	case v.Kind == unstable.InlineTable:
		d.readInline(path, name, at, v, false)
	case v.Kind == unstable.Array && onlyTables(v):
		for it := v.Children(); it.Next(); {
			d.readInline(path, name, at, it.Node(), true)
		}
	default:
		if v.Kind == unstable.Array {
			value.list = d.readList(v, value.at)
		}
		d.nodes = append(d.nodes, node{path: path, name: name, key: at, value: value})
	}
}

// readList reads the members of an array, each with its place where the syntax
// tree has one.
func (d *document) readList(array *unstable.Node, whole span) (list []literal) {
	for it := array.Children(); it.Next(); {
		n := it.Node()
		member := literal{kind: n.Kind, text: string(n.Data), at: whole}
		if n.Raw.Length > 0 {
			member.at = span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)}
		}
		list = append(list, member)
	}
	return list
}

func (d *document) readInline(path, name string, at span, table *unstable.Node, array bool) {
	d.nodes = append(d.nodes, node{path: path, name: name, key: at, header: true, array: array, inline: true})
	for it := table.Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			d.readValue(path, it.Node())
		}
	}
}

// onlyTables tells an array of tables from an array of values; an empty one is
// a value.
func onlyTables(array *unstable.Node) bool {
	some := false
	for it := array.Children(); it.Next(); {
		if it.Node().Kind != unstable.InlineTable {
			return false
		}
		some = true
	}
	return some
}

// valueSpan finds the value behind its key: the syntax tree has no place for
// arrays.
func (d *document) valueSpan(e *unstable.Node, key span) span {
	if raw := e.Value().Raw; raw.Length > 0 {
		return span{int(raw.Offset), int(raw.Offset + raw.Length)}
	}
	end := int(e.Raw.Offset + e.Raw.Length)
	start := key.end + bytes.IndexByte(d.text[key.end:end], '=') + 1
	for start < end && (d.text[start] == ' ' || d.text[start] == '\t') {
		start++
	}
	return span{start, end}
}

func keyOf(table string, parts unstable.Iterator) (path, name string, at span) {
	path = table
	for first := true; parts.Next(); first = false {
		part := parts.Node()
		name = string(part.Data)
		if path != "" {
			path += "."
		}
		path += bare(name)
		if first {
			at.start = int(part.Raw.Offset)
		}
		at.end = int(part.Raw.Offset + part.Raw.Length)
	}
	return path, name, at
}

// bare quotes a key that would look like several, or like none.
func bare(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return strconv.Quote(name)
	}
	return name
}

// checkTOML asks the decoder for what the syntax tree does not show, such as a
// table that a dotted key already closed. It is only for a text with nothing
// else wrong: its cost grows with the square of the number of keys, and a
// megabyte of unknown ones took it 15 seconds.
func (d *document) checkTOML() *Error {
	var all map[string]any
	err := toml.Unmarshal(d.text, &all)
	if err == nil {
		return nil
	}
	message := strings.TrimPrefix(err.Error(), "toml: ")
	var decode *toml.DecodeError
	if !errors.As(err, &decode) {
		return d.problem(span{}, "", message, "")
	}
	line, column := decode.Position()
	start := d.lines[min(line, len(d.lines))-1] + column - 1
	return d.problem(span{start, start + 1}, "", message, "")
}

// problem makes an Error out of a piece of the text. A piece over several
// lines is marked on its first.
func (d *document) problem(at span, key, message, hint string) *Error {
	at.start = min(at.start, len(d.text))
	line := d.line(at) - 1
	first, last := d.lineSpan(line)
	source := bytes.TrimSuffix(d.text[first:last], []byte("\r"))
	start := min(at.start-first, len(source))
	for start > 0 && start < len(source) && !utf8.RuneStart(source[start]) {
		start-- // the parser points at bytes, which may be inside of a character
	}
	end := max(start, min(at.end-first, len(source)))
	return &Error{
		File: d.file, Line: line + 1, Column: utf8.RuneCount(source[:start]) + 1,
		Width: max(1, utf8.RuneCount(source[start:end])),
		Key:   key, Message: message, Hint: hint, Source: string(source),
	}
}

// lineSpan is where a line begins and ends, without its line feed. Lines count from
// 0 here.
func (d *document) lineSpan(line int) (first, last int) {
	if line+1 < len(d.lines) {
		return d.lines[line], d.lines[line+1] - 1
	}
	return d.lines[line], len(d.text)
}

// line is the number of the line in which a piece of the text begins, from 1.
func (d *document) line(at span) int {
	return sort.SearchInts(d.lines, min(at.start, len(d.text))+1)
}
