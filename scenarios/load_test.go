package scenarios

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const good = `name = "one"
about = "a test"
[target]
kind = "static"
path = "/1k.html"
length = 1024
[load]
mode = "closed"
conns = [1, 2]
quick = [2]
`

func TestLoadEveryFile(t *testing.T) {
	all, err := Match(Files, "*")
	require.NoError(t, err)
	require.NotEmpty(t, all)
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	require.Subset(t, names, []string{
		"static-1k", "proxy-1k", "static-1k-latency", "proxy-1k-latency",
		"tls-static-1k", "tls-proxy-1k", "tls-proxy-1k-latency", "tls-proxy-1k-crowded",
		"tls-handshake-full", "tls-handshake-resumed",
		"static-10k", "static-100k", "static-1m", "static-100m", "tcp-1k", "tcp-100m", "idle-conns", "tls-idle-conns",
	})
}

func TestLoad(t *testing.T) {
	s, err := Load(fstest.MapFS{"one.toml": {Data: []byte(good)}}, "one")
	require.NoError(t, err)
	require.Equal(t, &Scenario{
		Name: "one", About: "a test",
		Target: Target{Kind: Static, Path: "/1k.html", Length: 1024},
		Load:   Traffic{Mode: Closed, Of: Requests, Conns: []int{1, 2}, Quick: []int{2}},
	}, s)
	require.Equal(t, []int{1, 2}, s.Load.Counts(false))
	require.Equal(t, []int{2}, s.Load.Counts(true))
}

func TestLoadRefuses(t *testing.T) {
	for _, row := range []struct{ name, old, new, want string }{
		{"unknown key", "conns =", "conections =", `one.toml:9:1: unknown key "load.conections"`},
		{"unknown table", "[load]", "[loud]", `one.toml:7:2: unknown key "loud"`},
		{"wrong type", "1024", `"1 KB"`, "one.toml:6:10: "},
		{"syntax", "[load]", "[load", "one.toml:7:6: "},
		{"name differs from file", `"one"`, `"two"`, `one.toml: name is "two"`},
		{"no about", `"a test"`, `""`, "about is missing"},
		{"kind", `"static"`, `"tunnel"`, `target.kind is "tunnel"`},
		{"relative path", "/1k.html", "1k.html", "target.path"},
		{"path climbs", "/1k.html", "/../1k.html", "target.path"},
		{"path splits the request line", "/1k.html", "/1k html", "target.path"},
		{"tls", "length = 1024", "length = 1024\ntls = \"on\"", `target.tls is "on"`},
		{"no length", "length = 1024", "", "target.length is 0"},
		{"mode", `"closed"`, `"half-open"`, `load.mode is "half-open"`},
		{"rate in a closed loop", `"closed"`, "\"closed\"\nrate = 5", "load.rate is set"},
		{"no rate in an open loop", `"closed"`, `"open"`, "load.rate is 0"},
		{"rate nobody can pace", `"closed"`, "\"open\"\nrate = 50000", "load.rate is 50000"},
		{"no conns", "conns = [1, 2]\nquick = [2]", "", "load.conns is missing"},
		{"zero conns", "[1, 2]", "[0]", "load.conns has 0"},
		{"too many conns", "[1, 2]", "[1, 20000]", "load.conns has 20000"},
		{"of", `"closed"`, "\"closed\"\nof = \"bytes\"", `load.of is "bytes"`},
		{"idle in an open loop", `"closed"`, "\"open\"\nrate = 5\nof = \"idle\"", `load.of is "idle", which is for mode "closed"`},
		{"handshakes without TLS", `"closed"`, "\"closed\"\nof = \"handshakes\"", "target.tls is missing"},
		{"handshakes beside a closed loop", `"closed"`, "\"closed\"\nhandshakes = 5", "load.handshakes is set"},
		{"handshakes beside plain requests", `"closed"`, "\"open\"\nrate = 5\nhandshakes = 5", "target.tls is missing"},
		{"handshakes nobody can make", `"closed"`, "\"open\"\nrate = 5\nhandshakes = 50000", "load.handshakes is 50000"},
		{"quick but not measured", "quick = [2]", "quick = [3]", "load.quick has 3"},
		{"the same conns twice", "[1, 2]", "[2, 2]", "load.conns has 2 after 2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.old, row.new, 1)
			require.NotEqual(t, good, text)
			s, err := Load(fstest.MapFS{"one.toml": {Data: []byte(text)}}, "one")
			require.ErrorContains(t, err, row.want)
			require.Nil(t, s)
		})
	}
}

func TestLoadRefusesNames(t *testing.T) {
	for _, name := range []string{"Static", "tls-1", "a b", "1k", "a=b"} {
		text := strings.Replace(good, `"one"`, `"`+name+`"`, 1)
		_, err := Load(fstest.MapFS{name + ".toml": {Data: []byte(text)}}, name)
		require.ErrorContains(t, err, "name", "%q", name)
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := Load(Files, "no-such")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "no-such.toml")
}

func TestMatch(t *testing.T) {
	for _, row := range []struct {
		name, patterns string
		want           []string
		err            string
	}{
		{"one", "static-1k", []string{"static-1k"}, ""},
		{"glob", "*-1k", []string{"proxy-1k", "static-1k", "tcp-1k", "tls-proxy-1k", "tls-static-1k"}, ""},
		{"list, without repeating", "static-1k, proxy-1k, static-?k", []string{"proxy-1k", "static-1k"}, ""},
		{"nothing matches", "static-1k,statik*", nil, `no scenario matches "statik*"`},
		{"empty", "", nil, `no scenario matches ""`},
		{"bad glob", "[", nil, "syntax error in pattern"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Match(Files, row.patterns)
			if row.err != "" {
				require.ErrorContains(t, err, row.err)
				require.Nil(t, got)
				return
			}
			require.NoError(t, err)
			var names []string
			for _, s := range got {
				names = append(names, s.Name)
			}
			require.Equal(t, row.want, names)
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(good)
	files, err := fs.Glob(Files, "*.toml")
	require.NoError(f, err)
	for _, file := range files {
		text, err := fs.ReadFile(Files, file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Load(fstest.MapFS{"one.toml": {Data: []byte(text)}}, "one")
		if err != nil {
			require.Nil(t, s, "an error comes without a value")
			require.Contains(t, err.Error(), "one.toml")
			return
		}
		require.NoError(t, s.check("one"))
		require.NotEmpty(t, s.Load.Conns)
	})
}
