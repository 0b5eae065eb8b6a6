package config

import (
	"fmt"
	"slices"
	"strings"
)

// textBytesMax bounds the work on a file given by mistake.
const textBytesMax = 1 << 20

// errorsMax bounds what is told at once; nobody reads more.
const errorsMax = 100

// Parse reads a configuration that uses no variables. The file name is only used in
// messages.
//
//	config, warnings, nil  ready to use
//	nil, nil, Errors       every problem of the file, in its order
func Parse(file string, text []byte) (*Config, []Warning, error) {
	reading, err := Read(file, text, nil)
	if err != nil {
		return nil, nil, err
	}
	return reading.Config, reading.Warnings, nil
}

// A Reading is a file without problems, with what it configures and where each value
// is from.
type Reading struct {
	Config   *Config
	Warnings []Warning

	reader *reader
	shows  bool // what variables stand for, in problems
}

// Revealing is the same for a log, where a problem says as well what the variables
// of its key stand for, but for those that are secret by their names. Whoever reads
// of a file that is not there wants to know which.
func (r *Reading) Revealing() *Reading {
	shown := *r
	shown.shows = true
	return &shown
}

// Read is Parse with the variables of an environment, which a nil lookup has none of.
func Read(file string, text []byte, lookup Lookup) (*Reading, error) {
	r := newReader(file, text)
	r.lookup = lookup
	if len(text) > textBytesMax {
		r.fail(span{}, "", fault{"the file is larger than a megabyte", "is this the right file?"})
		return nil, r.errs
	}
	syntax := r.doc.read()
	for i := range r.doc.nodes {
		if r.full {
			break
		}
		r.take(&r.doc.nodes[i])
	}
	if len(syntax) == 0 && !r.full {
		r.askDecoder()
		r.checkAll()
	} else {
		// There is something unread, so nothing can be called missing.
		r.errs = append(r.errs, syntax...)
	}
	if len(r.errs) > 0 {
		return nil, r.sorted()
	}
	return &Reading{Config: r.config, Warnings: r.unused(), reader: r}, nil
}

// nodesMax is how many keys a file with errors may have for the decoder to be asked
// about it as well: see checkTOML.
const nodesMax = 2000

// askDecoder adds what only the decoder sees. Of a file whose tables are known to be
// out of order it would say that again.
func (r *reader) askDecoder() {
	if r.disorder || len(r.errs) > 0 && len(r.doc.nodes) > nodesMax {
		return
	}
	found := r.doc.checkTOML()
	if found != nil && !slices.ContainsFunc(r.errs, func(e Error) bool { return e.Line == found.Line }) {
		r.errs = append(r.errs, *found)
	}
}

// Problem is something about a key that only came out later: that a file it names
// is not there, say. The key is a path such as "upstreams[1].ca". Of no reading,
// nil, it is nil: nobody knows the place.
func (r *Reading) Problem(key, message, hint string) *Error {
	if r == nil {
		return nil
	}
	v, set := r.reader.values[key]
	for i := range r.reader.keys {
		if k := &r.reader.keys[i]; !set && k.Alias == key {
			v, set = r.reader.values[k.Path]
		}
	}
	if !set {
		v.at, set = r.reader.seen[key]
	}
	if dot := strings.LastIndexByte(key, '.'); !set && dot > 0 {
		v.at = r.reader.seen[key[:dot]]
	}
	told := v.hidden(message)
	if r.shows && told != message {
		told += v.revealed()
	}
	return r.reader.doc.problem(v.at, key, told, v.hidden(hint))
}

// fault is a problem without its place.
type fault struct{ message, hint string }

// placed is a fault with its place.
type placed struct {
	fault
	at span
}

// reader turns nodes into a Config and remembers where everything stood.
type reader struct {
	doc    *document
	keys   []Key
	byPath map[string]*Key
	tables []string // every table, in the order of the reference
	config *Config
	lookup Lookup
	seen   map[string]span    // keys and tables of the file; upstreams[1].port
	values map[string]literal // of keys of the file
	wrong  map[string]bool    // unknown tables, told once
	errs   Errors

	full     bool // there are more tables of a kind than may be: the rest is not read
	disorder bool // a table is not where or what it has to be, and that is told
}

func newReader(file string, text []byte) *reader {
	r := &reader{
		doc:    newDocument(file, text),
		keys:   Keys(),
		byPath: make(map[string]*Key),
		config: &Config{File: file},
		seen:   make(map[string]span),
		values: make(map[string]literal),
		wrong:  make(map[string]bool),
	}
	for i := range r.keys {
		k := &r.keys[i]
		r.byPath[k.Path] = k
		if !slices.Contains(r.tables, k.Table()) {
			r.tables = append(r.tables, k.Table())
		}
		if !slices.Contains(optional, k.Table()) {
			r.setDefault(k)
		}
	}
	return r
}

// setDefault reads the default as if it stood in the file, so that the table
// of keys is the only place that knows it.
func (r *reader) setDefault(k *Key) {
	r.setTo(k, k.Default)
}

func (r *reader) setTo(k *Key, text string) {
	if text == "" {
		return
	}
	d := newDocument("default", []byte("value = "+text))
	if errs := d.read(); errs != nil {
		panic("config: default of " + k.Path + ": " + errs.Error())
	}
	if faults := k.assign(k.field(r.config), d.nodes[0].value); faults != nil {
		panic("config: default of " + k.Path + ": " + faults[0].message)
	}
}

// take handles one node of the file.
func (r *reader) take(n *node) {
	table := n.path
	if !n.header {
		table = strings.TrimSuffix(strings.TrimSuffix(n.path, bare(n.name)), ".")
	}
	switch {
	case n.header && slices.Contains(r.tables, n.path):
		r.openTable(n)
	case n.header && r.byPath[n.path] != nil:
		k := r.byPath[n.path]
		r.wrong[n.path], r.disorder = true, true
		r.seen[r.instance(k.Table())+"."+k.Name()] = n.key // not missing, on top of it
		r.fail(n.key, n.path, *k.mistaken("a table"))
	case n.header:
		r.unknownTable(n.path, n.key)
	case slices.Contains(r.tables, n.path):
		r.disorder = true
		r.fail(n.key, n.path, fault{fmt.Sprintf("`%s` is a table, not a value", n.name), "write " + brackets(n.path)})
		r.seen[n.path] = n.key
	case r.byPath[n.path] != nil:
		r.setKey(r.byPath[n.path], n)
	case table == "" || slices.Contains(r.tables, table):
		r.unknownKey(table, n)
	default:
		r.unknownTable(table, n.key)
	}
}

func (r *reader) openTable(n *node) {
	switch {
	case n.path == repeated:
		r.openUpstream(n)
		return
	case n.path == certificates:
		r.openCertificate(n)
		return
	case n.path == checked && !r.hasUpstream(n):
		return
	}
	if n.array {
		r.disorder = true
		r.fail(n.key, n.path, fault{fmt.Sprintf("there is only one `%s`", n.path), "write " + brackets(n.path)})
	}
	switch n.path {
	case secured:
		r.openTLS()
	case checked:
		r.setDefaults(checked)
	}
	r.see(r.instance(n.path), n.path, n.key)
}

// hasUpstream reports an upstream's key or table that stands before the first
// upstream.
func (r *reader) hasUpstream(n *node) bool {
	if len(r.config.Upstreams) > 0 {
		return true
	}
	r.disorder = true
	r.fail(n.key, n.path, fault{"an upstream needs its table", "write " + brackets(repeated) + " above it"})
	r.seen[repeated] = n.key
	return false
}

// openTLS makes the table of TLS, which several things in a file begin.
func (r *reader) openTLS() {
	if r.config.Listen.TLS == nil {
		r.setDefaults(secured)
	}
}

func (r *reader) openCertificate(n *node) {
	if !n.array {
		r.disorder = true
		r.fail(n.key, n.path, fault{"each certificate is a table of its own", "write " + brackets(n.path)})
	}
	r.openTLS()
	tls := tlsOf(r.config)
	if len(tls.Certificates) == certsMax {
		r.full = true
		r.fail(n.key, n.path, fault{fmt.Sprintf("more than %d certificates", certsMax), "leave some out"})
	}
	tls.Certificates = append(tls.Certificates, Certificate{})
	for _, table := range []string{certificates, r.instance(certificates)} {
		if _, before := r.seen[table]; !before {
			r.seen[table] = n.key
		}
	}
}

// hasCertificate reports a certificate's key that stands before the first of their
// tables.
func (r *reader) hasCertificate(n *node) bool {
	if tls := r.config.Listen.TLS; tls != nil && len(tls.Certificates) > 0 {
		return true
	}
	r.disorder = true
	r.fail(n.key, n.path, fault{
		"a further certificate needs its table", "write " + brackets(certificates) + " above it"})
	return false
}

func (r *reader) setDefaults(table string) {
	for i := range r.keys {
		if r.keys[i].Table() == table {
			r.setDefault(&r.keys[i])
		}
	}
}

func (r *reader) openUpstream(n *node) {
	if !n.array {
		r.disorder = true
		r.fail(n.key, n.path, fault{"each upstream is a table of its own", "write " + brackets(n.path)})
	}
	if len(r.config.Upstreams) == upstreamsMax {
		r.full = true
		r.fail(n.key, n.path, fault{fmt.Sprintf("more than %d upstreams", upstreamsMax), "leave some out"})
	}
	r.config.Upstreams = append(r.config.Upstreams, Upstream{})
	r.setDefaults(repeated)
	if _, before := r.seen[repeated]; !before {
		r.seen[repeated] = n.key
	}
	r.seen[r.instance(repeated)] = n.key
}

func (r *reader) setKey(k *Key, n *node) {
	switch table := k.Table(); {
	case (table == repeated || table == checked) && !r.hasUpstream(n),
		table == certificates && !r.hasCertificate(n):
		return
	case table == checked && lastUpstream(r.config).HealthCheck == nil:
		r.setDefaults(checked) // opened by a dotted key
	case table == secured:
		r.openTLS()
	}
	path := r.instance(k.Table()) + "." + k.Name()
	if !r.see(path, k.Name(), n.key) {
		return
	}
	if table := r.instance(k.Table()); r.seen[table] == (span{}) {
		r.seen[table] = n.key // opened by a dotted key
	}
	if twin, both := r.seen[k.Alias]; both && k.Alias != "" {
		r.fail(n.key, path, r.sameAs(k.Alias, twin))
	}
	for i := range r.keys {
		if twin, both := r.seen[r.keys[i].Path]; both && r.keys[i].Alias == k.Path {
			r.fail(n.key, path, r.sameAs(r.keys[i].Path, twin))
		}
	}
	value, faults := r.expandAll(n.value)
	r.values[path] = value
	if faults == nil {
		faults = k.assign(k.field(r.config), value)
	}
	for _, f := range faults {
		r.fail(f.at, path, f.fault)
	}
}

// expandAll replaces the variables of a value and of its members.
func (r *reader) expandAll(v literal) (_ literal, faults []placed) {
	v, f, at := r.expand(v)
	if f != nil {
		faults = append(faults, placed{*f, at})
	}
	for i := range v.list {
		member, f, at := r.expand(v.list[i])
		if f != nil {
			faults = append(faults, placed{*f, at})
		}
		v.list[i] = member
	}
	return v, faults
}

func (r *reader) sameAs(path string, at span) fault {
	return fault{
		fmt.Sprintf("`%s` on line %d says the same", path, r.doc.line(at)),
		"keep one of the two",
	}
}

// see notes where a key or table stands; a second time is an error.
func (r *reader) see(path, name string, at span) bool {
	if first, twice := r.seen[path]; twice {
		line := r.doc.line(first)
		r.disorder = true
		r.fail(at, path, fault{fmt.Sprintf("`%s` is here twice", name), fmt.Sprintf("first on line %d", line)})
		return false
	}
	r.seen[path] = at
	return true
}

// instance is the path of a table as it stands in the file: a repeated one has
// its number.
func (r *reader) instance(table string) string {
	if table == certificates {
		return fmt.Sprintf("%s[%d]", certificates, len(tlsOf(r.config).Certificates)-1)
	}
	if below, ok := strings.CutPrefix(table, repeated); ok {
		return fmt.Sprintf("%s[%d]%s", repeated, len(r.config.Upstreams)-1, below)
	}
	return table
}

// brackets is how the header of a table is written.
func brackets(table string) string {
	if table == repeated || table == certificates {
		return "[[" + table + "]]"
	}
	return "[" + table + "]"
}

func (r *reader) fail(at span, key string, f fault) {
	if len(r.errs) < errorsMax {
		r.errs = append(r.errs, *r.doc.problem(at, key, f.message, f.hint))
	}
}

// sorted returns the errors in the order of the file; those of one place stay
// as they were found.
func (r *reader) sorted() Errors {
	slices.SortStableFunc(r.errs, func(a, b Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return r.errs
}
