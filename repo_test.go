// The rules of this repository that no other tool checks, as tests. The plan
// of the floors and the doors stand here as data. Where a change breaks a
// rule, change the code; where the code teaches better, change the data and
// say why in proxy/design.
package atlas_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "atlas"

// floors is the plan: a package imports only lower floors of its own building.
// It never imports its own floor, so no circle can close.
var floors = map[string]map[string]int{
	"proxy": {
		"proxy":                9, // main
		"proxy/floor":          9, // main of bin/floor
		"proxy/admin":          8,
		"proxy/server":         7,
		"proxy/forward":        6,
		"proxy/static":         6,
		"proxy/tunnel":         6,
		"proxy/upstream":       5,
		"proxy/exchange":       5,
		"proxy/tlsio":          4,
		"proxy/proxyhead":      4,
		"proxy/relay":          4,
		"proxy/reference":      3,
		"proxy/doctor":         3,
		"proxy/looptest":       3, // helps tests
		"proxy/loop/iouringgo": 3, // benchmark of what loop is not built on
		"proxy/loop":           2,
		"proxy/config":         2,
		"proxy/uring":          1,
		"proxy/h1":             1,
		"proxy/balance":        1,
		"proxy/limit":          1,
		"proxy/accesslog":      1,
		"proxy/handover":       0,
		"proxy/stats":          0,
		"proxy/watch":          0,
		"proxy/invariant":      0,
	},
	"harness": {
		"harness":             3, // main
		"harness/subject":     2,
		"harness/attack":      2,
		"harness/conformance": 2,
		"harness/corpus":      1,
		"harness/cert":        1,
		"harness/origin":      1,
		"harness/host":        1,
		"scenarios":           0,
		"results":             0,
	},
	"compare": {
		"compare":        3, // main
		"compare/report": 2,
		"compare/gate":   1,
		"results":        0, // compare reads no scenarios: whoever edits a load must not loosen its limit
	},
	"rules": {".": 0},
}

// helpers are packages for tests: any test of their building may import them,
// also one on a lower floor, and nothing else may.
var helpers = []string{"proxy/looptest"}

// doors says which packages may import a third party. "dir/..." is dir and
// what is below; "tests" is every test. The longest prefix of an import counts.
var doors = map[string][]string{
	"github.com/HdrHistogram/hdrhistogram-go":  {"harness/attack", "results", "compare/..."},
	"github.com/chromedp/cdproto":              {"tests"},
	"github.com/chromedp/chromedp":             {"tests"},
	"github.com/coder/websocket":               {"tests"},
	"github.com/compose-spec/compose-go/v2":    {"tests"},
	"github.com/coreos/go-systemd/v22":         {"proxy"},
	"github.com/fsnotify/fsnotify":             {"proxy/watch"},
	"github.com/iceber/iouring-go":             {"proxy/loop/iouringgo"},
	"github.com/iceber/iouring-go/syscall":     {"proxy/uring"},
	"github.com/pelletier/go-toml/v2":          {"proxy/config", "scenarios", "compare/...", "tests"},
	"github.com/pires/go-proxyproto":           {"proxy/proxyhead", "tests"},
	"github.com/prometheus/client_golang":      {"proxy/admin"},
	"github.com/prometheus/client_model":       {"tests"},
	"github.com/prometheus/common":             {"tests"},
	"github.com/rogpeppe/go-internal":          {"tests"},
	"github.com/santhosh-tekuri/jsonschema/v6": {"tests"},
	"github.com/stretchr/testify":              {"tests", "proxy/looptest"},
	"go.yaml.in/yaml/v3":                       {"tests", "harness/subject"},
	"github.com/tsenart/vegeta/v12":            {"harness/attack"},
	"gonum.org/v1/plot":                        {"compare/report"},
	"golang.org/x/crypto":                      {"proxy/server"},
	"golang.org/x/perf":                        {"results", "compare/..."},
	"gonum.org/v1/gonum":                       {"compare/..."},
	"golang.org/x/tools/txtar":                 {"tests", "harness/corpus"},
	"golang.org/x/sys": {
		"proxy/uring", "proxy/loop", "proxy/looptest", "proxy/server", "proxy/doctor", "proxy/handover", "proxy/admin",
		"proxy/floor",
		"harness/host", "harness/subject",
	},
	"golang.org/x/time": {"tests"},
	"unsafe":            {"proxy/uring"},
	"C":                 {}, // the binary is static
}

// handlers run on the worker's thread: what they do goes through loop.
var handlers = []string{"proxy/forward", "proxy/static", "proxy/tunnel"}

// handlersBanned are imports of handlers, with what is below them unless it is
// in handlersAllowed.
var (
	handlersBanned  = []string{"os", "net", "sync", "log", "syscall"}
	handlersAllowed = []string{"net/netip", "net/textproto", "net/url", "sync/atomic"}
)

// skippers are the functions that may skip a test: each skips for one reason,
// and fails where the reason must not be there.
var skippers = []string{
	"requireRing",      // no io_uring; fails under REQUIRE_URING
	"RequireRing",      // the same, for other packages
	"requirePerf",      // system calls cannot be counted; fails as root under CI
	"requireInstalled", // a server to measure is not installed; fails under CI
	"skipShort",        // go test -short
	"skipInvariant",    // counts allocations, which the race detector and invariants change
}

// bannedWords have two meanings here, or none.
var bannedWords = map[string]string{
	"backend": "say upstream, engine or origin",
	"manager": "say what it does",
	"util":    "say what it is for",
	"utils":   "say what it is for",
	"context": "say whose state it is",
	"data":    "say which: bytes, body, sample",
	"info":    "say which: facts, features, head",
}

// borrowed are names that somebody else gave.
var borrowed = map[string]string{
	"userData":                   "user_data of the submission queue entry, struct io_uring_sqe",
	"KeyProxyAuthenticationInfo": "RFC 9110 section 11.7.3",
}

// Sizes, in lines and columns. A tab counts as four columns. Tests may be
// longer and, as their rows quote what goes over the wire, wider.
const (
	functionMax    = 70
	fileWarn       = 500
	fileMax        = 600
	testFileMax    = 1000
	columnsMax     = 120
	testColumnsMax = 140
	columnsOfTab   = 4
	leftoverWords  = "TO" + "DO|FIX" + "ME|XX" + "X" // in pieces, or this line breaks the rule
)

// A source is one parsed Go file.
type source struct {
	path string // from the top of the repository
	text string
	file *ast.File
	set  *token.FileSet
}

func (s *source) dir() string  { return path.Dir(s.path) }
func (s *source) base() string { return path.Base(s.path) }
func (s *source) test() bool   { return strings.HasSuffix(s.path, "_test.go") }

// imports are the paths a file imports, with the place of each.
func (s *source) imports() map[string]token.Pos {
	all := make(map[string]token.Pos)
	for _, spec := range s.file.Imports {
		all[strings.Trim(spec.Path.Value, "`\"")] = spec.Pos()
	}
	return all
}

// repo is every file the rules look at: Go files parsed, others as text.
type repo struct {
	sources []*source
	texts   map[string]string
}

// findings are what is wrong, each with its place and its fix.
type findings []string

func (f *findings) at(s *source, pos token.Pos, format string, args ...any) {
	f.add("%s:%d: %s", s.path, s.set.Position(pos).Line, fmt.Sprintf(format, args...))
}

func (f *findings) add(format string, args ...any) {
	*f = append(*f, fmt.Sprintf(format, args...))
}

// A rule adds to the findings.
type rule func(*repo, *findings)

var rules = map[string]rule{
	"FloorPlan":       floorPlan,
	"Doors":           thirdParties,
	"Handlers":        handlersStayOnTheirThread,
	"PackageComments": packageComments,
	"Sizes":           sizes,
	"Leftovers":       leftovers,
	"Names":           names,
	"Engines":         engines,
	"Skips":           skips,
	"Init":            inits,
}

// TestRepo checks every rule on the repository. The walk opens each file in
// this process: a test that asked `go list` would be cached although a file
// has changed.
func TestRepo(t *testing.T) {
	r := read(t, os.DirFS("."))
	require.NotEmpty(t, r.sources)
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		t.Run(name, func(t *testing.T) {
			var found findings
			rules[name](r, &found)
			for _, finding := range slices.Sorted(slices.Values(found)) {
				t.Error(finding)
			}
		})
	}
	for _, s := range r.sources {
		if n := strings.Count(s.text, "\n"); n > fileWarn && !s.test() {
			t.Logf("%s has %d lines: look for the second noun", s.path, n)
		}
	}
}

func read(t *testing.T, fsys fs.FS) *repo {
	t.Helper()
	files := make(map[string]string)
	require.NoError(t, fs.WalkDir(fsys, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "testdata", "runs", "published", "baseline"}, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		ext := path.Ext(file)
		known := slices.Contains([]string{".go", ".md", ".toml", ".yml", ".yaml", ".sh", ""}, ext)
		if !known || !entry.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(fsys, file)
		files[file] = string(text)
		return err
	}))
	return parse(t, files)
}

func parse(t *testing.T, files map[string]string) *repo {
	t.Helper()
	r := &repo{texts: make(map[string]string)}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(file) != ".go" {
			r.texts[file] = files[file]
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, file, files[file], parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		r.sources = append(r.sources, &source{file, files[file], f, set})
	}
	return r
}

// floorPlan holds imports to the plan.
func floorPlan(r *repo, f *findings) {
	planned := make(map[string]bool)
	for _, building := range floors {
		for dir := range building {
			planned[dir] = true
		}
	}
	for _, s := range r.sources {
		if !planned[s.dir()] {
			f.at(s, 1, "package %s is on no floor: put it in the floor plan, "+
				"floors in repo_test.go", s.dir())
			continue
		}
		for imported, pos := range s.imports() {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || mayImport(s, to) {
				continue
			}
			f.at(s, pos, "%s imports %s, which is not on a lower floor of its building: "+
				"move the code down, or pass what is needed in from above", s.dir(), to)
		}
	}
}

func mayImport(s *source, to string) bool {
	if s.test() && s.dir() == to {
		return true // a test from outside of its package
	}
	for _, building := range floors {
		from, here := building[s.dir()]
		floor, there := building[to]
		if !here || !there {
			continue
		}
		if slices.Contains(helpers, to) {
			return s.test()
		}
		if floor < from {
			return true
		}
	}
	return false
}

// thirdParties holds each dependency to its door.
func thirdParties(r *repo, f *findings) {
	for _, s := range r.sources {
		for imported, pos := range s.imports() {
			first, _, _ := strings.Cut(imported, "/")
			standard := !strings.Contains(first, ".") && imported != "unsafe" && imported != "C"
			if standard || strings.HasPrefix(imported, module+"/") {
				continue
			}
			party, allowed := door(imported)
			switch {
			case party == "":
				f.at(s, pos, "%s has no door: choose the one package that may import it "+
					"and put it in doors in repo_test.go", imported)
			case !slices.ContainsFunc(allowed, func(to string) bool { return admits(to, s) }):
				f.at(s, pos, "%s may not import %s: only %s may; call that instead",
					s.dir(), party, strings.Join(allowed, ", "))
			}
		}
	}
}

// door finds who may import a path.
func door(imported string) (party string, allowed []string) {
	for p, to := range doors {
		if (imported == p || strings.HasPrefix(imported, p+"/")) && len(p) > len(party) {
			party, allowed = p, to
		}
	}
	return party, allowed
}

func admits(to string, s *source) bool {
	if to == "tests" {
		return s.test()
	}
	if tree, ok := strings.CutSuffix(to, "/..."); ok {
		return s.dir() == tree || strings.HasPrefix(s.dir(), tree+"/")
	}
	return s.dir() == to
}

// handlersStayOnTheirThread bans what could block a worker or leave it.
func handlersStayOnTheirThread(r *repo, f *findings) {
	for _, s := range r.sources {
		if s.test() || !slices.Contains(handlers, s.dir()) {
			continue
		}
		for imported, pos := range s.imports() {
			first, _, _ := strings.Cut(imported, "/")
			if slices.Contains(handlersBanned, first) && !slices.Contains(handlersAllowed, imported) {
				f.at(s, pos, "a handler may not import %s, it could block its worker: "+
					"ask loop for it", imported)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				f.at(s, g.Pos(), "a handler may not start a goroutine: start a task of its worker")
			}
			return true
		})
	}
}

// packageComments wants one for each package, in the file where one looks.
func packageComments(r *repo, f *findings) {
	comments := make(map[string][]string) // by folder, files
	packages := make(map[string]*source)
	for _, s := range r.sources {
		if s.test() {
			continue
		}
		packages[s.dir()] = s
		if s.file.Doc.Text() != "" {
			comments[s.dir()] = append(comments[s.dir()], s.base())
		}
	}
	for dir, s := range packages {
		want := s.file.Name.Name + ".go"
		if found := comments[dir]; len(found) != 1 || found[0] != want {
			f.add("%s: the package comment belongs in %s and nowhere else, found in %v",
				dir, want, found)
		}
	}
}

// sizes keeps a function on a screen and a file in a head.
func sizes(r *repo, f *findings) {
	for _, s := range r.sources {
		most, wide := fileMax, columnsMax
		if s.test() {
			most, wide = testFileMax, testColumnsMax
		}
		lines := strings.Split(s.text, "\n")
		if len(lines) > most {
			f.add("%s: %d lines, at most %d: look for the second noun and give it a file",
				s.path, len(lines), most)
		}
		for i, line := range lines {
			columns := utf8.RuneCountInString(line) + strings.Count(line, "\t")*(columnsOfTab-1)
			if columns > wide {
				f.add("%s:%d: %d columns, at most %d: break the line",
					s.path, i+1, columns, wide)
			}
		}
		for _, d := range s.file.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || s.test() {
				continue
			}
			n := s.set.Position(function.End()).Line - s.set.Position(function.Pos()).Line + 1
			if n > functionMax {
				f.at(s, function.Pos(), "%s has %d lines, at most %d: let it decide, move the work out",
					function.Name.Name, n, functionMax)
			}
		}
	}
}

// leftovers finds notes to oneself.
func leftovers(r *repo, f *findings) {
	note := regexp.MustCompile(`\b(` + leftoverWords + `)\b`)
	const fix = "do it now, or open an issue and take the note out"
	for _, s := range r.sources {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if word := note.FindString(c.Text); word != "" {
					f.at(s, c.Pos(), "%s: %s", word, fix)
				}
			}
		}
	}
	for file, text := range r.texts {
		for i, line := range strings.Split(text, "\n") {
			if word := note.FindString(line); word != "" {
				f.add("%s:%d: %s: %s", file, i+1, word, fix)
			}
		}
	}
}

// names bans words from files, packages, types, functions, variables and
// constants. What is inside of a function is too short-lived to mislead.
func names(r *repo, f *findings) {
	for _, s := range r.sources {
		check := func(pos token.Pos, kind, name string) {
			if borrowed[name] != "" {
				return
			}
			for _, word := range words(name) {
				if fix := bannedWords[word]; fix != "" {
					f.at(s, pos, "%q in the name of %s %s: %s", word, kind, name, fix)
				}
			}
		}
		check(1, "file", strings.TrimSuffix(s.base(), ".go"))
		check(1, "package", s.file.Name.Name)
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				check(d.Pos(), "function", d.Name.Name)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						check(spec.Pos(), "type", spec.Name.Name)
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							check(name.Pos(), "value", name.Name)
						}
					}
				}
			}
		}
	}
}

// words splits a name: httpBackend_pool is http, backend, pool.
func words(name string) []string {
	var all []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			all = append(all, strings.ToLower(string(word)))
		}
		word = word[:0]
	}
	lower := false
	for _, c := range name {
		if c == '_' || c == '-' || c == '.' {
			end()
			continue
		}
		if unicode.IsUpper(c) && lower {
			end()
		}
		lower = !unicode.IsUpper(c)
		word = append(word, c)
	}
	end()
	return all
}

// engines keeps the choice of an engine inside of loop: everywhere else, code
// that asks which one it runs on will run on one only.
func engines(r *repo, f *findings) {
	for _, s := range r.sources {
		outside := !strings.HasPrefix(s.dir(), "proxy") || s.dir() == "proxy/loop"
		if outside || s.test() || slices.Contains(helpers, s.dir()) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			asks := false
			switch n := n.(type) {
			case *ast.BinaryExpr:
				asks = (n.Op == token.EQL || n.Op == token.NEQ) && (isEngine(n.X) || isEngine(n.Y))
			case *ast.SwitchStmt:
				asks = isEngine(n.Tag)
			}
			if asks {
				f.at(s, n.Pos(), "asks which engine it runs on: put the difference behind loop")
			}
			return true
		})
	}
}

func isEngine(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(e.Name, "engine")
	case *ast.SelectorExpr:
		return strings.EqualFold(e.Sel.Name, "engine")
	case *ast.CallExpr:
		return isEngine(e.Fun)
	}
	return false
}

// skips keeps a green run honest: a test that skips itself for a reason of its
// own hides a bug for as long as nobody reads the log.
func skips(r *repo, f *findings) {
	for _, s := range r.sources {
		if _, tests := s.imports()["testing"]; !tests {
			continue
		}
		for _, d := range s.file.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || slices.Contains(skippers, function.Name.Name) {
				continue
			}
			ast.Inspect(function, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, method.Sel.Name) {
					f.at(s, n.Pos(), "%s skips: call one of %s, or make it run",
						function.Name.Name, strings.Join(skippers, ", "))
				}
				return true
			})
		}
	}
}

// inits bans work that nobody called.
func inits(r *repo, f *findings) {
	for _, s := range r.sources {
		for _, d := range s.file.Decls {
			if function, ok := d.(*ast.FuncDecl); ok && function.Recv == nil && function.Name.Name == "init" {
				f.at(s, function.Pos(), "init runs before anybody asks: do it in a constructor")
			}
		}
	}
}

// TestRules makes each rule fail, and pass, on a few lines of its own.
func TestRules(t *testing.T) {
	long := strings.Repeat("\tx++\n", functionMax)
	const testingImport = "import \"testing\"\n\n"
	for _, row := range []struct {
		rule, name string
		files      map[string]string
		want       string // part of what is found; empty: nothing
	}{
		{"FloorPlan", "downwards", importing("proxy/server", "atlas/proxy/forward"), ""},
		{"FloorPlan", "two floors down", importing("proxy", "atlas/proxy/stats"), ""},
		{"FloorPlan", "upwards", importing("proxy/loop", "atlas/proxy/server"), "lower floor"},
		{"FloorPlan", "its own floor", importing("proxy/static", "atlas/proxy/forward"), "lower floor"},
		{"FloorPlan", "the other building", importing("harness", "atlas/proxy/h1"), "lower floor"},
		{"FloorPlan", "the lab reads results", importing("compare/gate", "atlas/results"), ""},
		{"FloorPlan", "compare reads no scenarios", importing("compare", "atlas/scenarios"), "lower floor"},
		{"FloorPlan", "a new package", goFile("proxy/cache", ""), "put it in the floor plan"},
		{"FloorPlan", "of an unknown one", importing("proxy", "atlas/proxy/cache"), "lower floor"},
		{"FloorPlan", "a helper of tests, in one", testImporting("proxy/loop", "atlas/proxy/looptest"), ""},
		{"FloorPlan", "and outside of one", importing("proxy/server", "atlas/proxy/looptest"), "lower floor"},
		{"FloorPlan", "a test from outside", testImporting("proxy/loop", "atlas/proxy/loop"), ""},
		{"FloorPlan", "behind a build tag", map[string]string{
			"proxy/h1/x.go": "//go:build never\n\npackage h1\n\nimport _ \"atlas/proxy/loop\"\n"}, "x.go:5"},

		{"Doors", "at its door", importing("proxy/config", "github.com/pelletier/go-toml/v2/unstable"), ""},
		{"Doors", "elsewhere", importing("proxy/server", "github.com/pelletier/go-toml/v2"), "only proxy/config"},
		{"Doors", "below a tree", importing("compare/gate", "golang.org/x/perf/benchmath"), ""},
		{"Doors", "a longer name", importing("proxy/config", "github.com/pelletier/go-toml/v20"), "no door"},
		{"Doors", "the part of a module", importing("proxy/uring", "github.com/iceber/iouring-go/syscall"), ""},
		{"Doors", "the module of the part", importing("proxy/uring", "github.com/iceber/iouring-go"), "may not"},
		{"Doors", "testify in a test", testImporting("proxy/h1", "github.com/stretchr/testify/assert"), ""},
		{"Doors", "testify in the product", importing("proxy/h1", "github.com/stretchr/testify/assert"), "only tests"},
		{"Doors", "unsafe", testImporting("proxy/h1", "unsafe"), "only proxy/uring"},
		{"Doors", "cgo", importing("proxy/uring", "C"), "may not import C"},
		{"Doors", "a new dependency", importing("proxy/h1", "example.org/x"), "no door"},
		{"Doors", "the standard library", importing("proxy/h1", "net/http"), ""},

		{"Handlers", "addresses", importing("proxy/forward", "net/netip"), ""},
		{"Handlers", "sockets", importing("proxy/forward", "net"), "may not import net"},
		{"Handlers", "a package below", importing("proxy/static", "os/exec"), "os/exec"},
		{"Handlers", "in a test", testImporting("proxy/static", "os"), ""},
		{"Handlers", "elsewhere", importing("proxy/server", "os"), ""},
		{"Handlers", "a goroutine", goFile("proxy/tunnel", `func f() { go f() }`), "task"},

		{"PackageComments", "where it belongs", map[string]string{
			"proxy/h1/h1.go": "// Package h1 is here.\npackage h1\n", "proxy/h1/x.go": "package h1\n"}, ""},
		{"PackageComments", "a main", map[string]string{"proxy/main.go": "// Atlas is here.\npackage main\n"}, ""},
		{"PackageComments", "missing", map[string]string{"proxy/h1/h1.go": "package h1\n"}, "belongs in h1.go"},
		{"PackageComments", "a build tag is none", map[string]string{
			"proxy/h1/h1.go": "//go:build linux\npackage h1\n"}, "belongs in h1.go"},
		{"PackageComments", "in another file", map[string]string{
			"proxy/h1/doc.go": "// Package h1 is here.\npackage h1\n"}, "found in [doc.go]"},
		{"PackageComments", "twice", map[string]string{
			"proxy/h1/h1.go": "// Package h1 is here.\npackage h1\n",
			"proxy/h1/x.go":  "// And here.\npackage h1\n"}, "found in [h1.go x.go]"},
		{"PackageComments", "only tests", goTest("proxy/h1", ""), ""},

		{"Sizes", "a long function", goFile("proxy/h1", "func f() {\n"+long+"}"), "f has 72 lines"},
		{"Sizes", "in a test", goTest("proxy/h1", "func f() {\n"+long+"}"), ""},
		{"Sizes", "the longest function", goFile("proxy/h1", "func f() {\n"+long[:len(long)-10]+"}"), ""},
		{"Sizes", "a long file", goFile("proxy/h1", strings.Repeat("\n", fileMax)), "second noun"},
		{"Sizes", "a long test", goTest("proxy/h1", strings.Repeat("\n", fileMax)), ""},
		{"Sizes", "a longer test", goTest("proxy/h1", strings.Repeat("\n", testFileMax)), "second noun"},
		{"Sizes", "a long line", goFile("proxy/h1", "//"+strings.Repeat("ä", 119)), "121 columns"},
		{"Sizes", "as long in a test", goTest("proxy/h1", "//"+strings.Repeat("ä", 119)), ""},
		{"Sizes", "a longer one in a test", goTest("proxy/h1", "//"+strings.Repeat("ä", 139)), "141 columns"},
		{"Sizes", "the longest line", goFile("proxy/h1", "//"+strings.Repeat("ä", 118)), ""},
		{"Sizes", "tabs count", goFile("proxy/h1", "func f() {\n\t//"+strings.Repeat("x", 115)+"\n}"), "121 columns"},

		{"Leftovers", "in code", goFile("proxy/h1", "// TO"+"DO: all of it"), "do it now"},
		{"Leftovers", "in a text", map[string]string{"README.md": "fine\nFIX" + "ME\n"}, "README.md:2"},
		{"Leftovers", "in a string", goFile("proxy/h1", `const s = "TO`+`DO"`), ""},

		{"Names", "a type", goFile("proxy/h1", "type PoolManager struct{}"), "say what it does"},
		{"Names", "a function", goFile("proxy/h1", "func backendOf() {}"), "say upstream"},
		{"Names", "a method", goFile("proxy/h1", "type t int\nfunc (t) Data() {}"), "say which"},
		{"Names", "a value", goFile("proxy/h1", "const hostInfo = 1"), "say which"},
		{"Names", "a file", map[string]string{"proxy/h1/buf_util_linux.go": "package h1\n"}, "file buf_util_linux"},
		{"Names", "a package", map[string]string{"proxy/h1/x.go": "package utils\n"}, "package utils"},
		{"Names", "a borrowed one", goFile("proxy/uring", "func userData() {}"), ""},
		{"Names", "a part of a word", goFile("proxy/h1", "type database struct{}\nfunc informative() {}"), ""},
		{"Names", "inside of a function", goFile("proxy/h1", "func f() { data := 1; _ = data }"), ""},

		{"Engines", "equal", goFile("proxy/server", `func f() { if c.Engine == "x" {} }`), "behind loop"},
		{"Engines", "not equal", goFile("proxy/server", `func f() { if nil != engine() {} }`), "behind loop"},
		{"Engines", "switch", goFile("proxy/forward", `func f() { switch engine {} }`), "behind loop"},
		{"Engines", "in loop", goFile("proxy/loop", `func f() { switch engine {} }`), ""},
		{"Engines", "in a helper of tests", goFile("proxy/looptest", `func f() { switch engine {} }`), ""},
		{"Engines", "in the lab", goFile("harness", `func f() { switch engine {} }`), ""},

		{"Skips", "a test", goTest("proxy/h1", testingImport+`func TestX(t *testing.T) { t.Skip("later") }`), "TestX skips"},
		{"Skips", "within a run", goTest("proxy/h1",
			testingImport+`func TestX(t *testing.T) { t.Run("", func(t *testing.T) { t.SkipNow() }) }`), "TestX skips"},
		{"Skips", "a helper", goTest("proxy/h1", testingImport+`func requireRing(t *testing.T) { t.Skip() }`), ""},
		{"Skips", "a helper for others", goFile("proxy/looptest", testingImport+`func Some(t testing.TB) { t.Skip() }`), "Some"},
		{"Skips", "not of a test", goFile("proxy/h1", `func f() { body.Skip() }`), ""},

		{"Init", "init", goFile("proxy/h1", "func init() {}"), "constructor"},
		{"Init", "a method", goFile("proxy/h1", "type t int\nfunc (t) init() {}"), ""},
	} {
		t.Run(row.rule+"/"+row.name, func(t *testing.T) {
			var found findings
			rules[row.rule](parse(t, row.files), &found)
			if row.want == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1, "%q", found)
			assert.Contains(t, found[0], row.want)
		})
	}
}

// TestPlan checks the plan itself.
func TestPlan(t *testing.T) {
	for _, dir := range slices.Concat(handlers, helpers) {
		assert.Contains(t, floors["proxy"], dir)
	}
	for party, allowed := range doors {
		for _, dir := range allowed {
			dir = strings.TrimSuffix(dir, "/...")
			known := dir == "tests" || slices.ContainsFunc(slices.Collect(maps.Values(floors)),
				func(building map[string]int) bool { _, ok := building[dir]; return ok })
			assert.True(t, known, "the door of %s leads to %s, which is on no floor", party, dir)
		}
	}
	assert.Equal(t, []string{"http", "backend", "pool", "max"}, words("httpBackend_poolMax"))
}

// importing is one file of a package with one import.
func importing(dir, imported string) map[string]string {
	return goFile(dir, fmt.Sprintf("import _ %q", imported))
}

func testImporting(dir, imported string) map[string]string {
	return goTest(dir, fmt.Sprintf("import _ %q", imported))
}

// goFile is one file of a package.
func goFile(dir, body string) map[string]string {
	return map[string]string{dir + "/x.go": "package x\n\n" + body + "\n"}
}

func goTest(dir, body string) map[string]string {
	return map[string]string{dir + "/x_test.go": "package x\n\n" + body + "\n"}
}
