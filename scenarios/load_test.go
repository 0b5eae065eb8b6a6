package scenarios

import (
	"io/fs"
	"strconv"
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
		"static-10k", "static-100k", "static-1m", "static-100m", "tcp-1k", "tcp-100m", "tls-tcp-1k", "tls-tcp-100m",
		"idle-conns", "tls-idle-conns", "readme-static-1k", "readme-proxy-1k", "readme-tls-proxy-1k",
		"static-1k-conns", "static-size", "static-1k-cores", "static-1k-headers", "static-1k-connections",
		"greedy-proxy-upload", "greedy-proxy-download", "greedy-proxy-pipeline", "greedy-static-download", "greedy-static-pipeline",
		"overload", "proxy-1k-conns", "proxy-size", "proxy-1k-cores", "proxy-1k-headers", "proxy-1k-connections",
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
		{"cores that nobody has", "[load]", "[shared]\ncores = 65\n[load]", "shared.cores is 65"},
		{"fewer cores than none", "[load]", "[shared]\ncores = -1\n[load]", "shared.cores is -1"},
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
		{"headers nobody takes", "conns =", "headers = 91\nconns =", "load.headers is 91"},
		{"connections over TLS", "length = 1024\n[load]", "length = 1024\ntls = \"rsa-2048\"\n[load]\nof = \"connections\"",
			`load.of is "connections", but target.tls is set`},
		{"what nobody varies", "quick = [2]", "[vary]\nconn = [1, 2]", `one.toml:11:1: unknown key "vary.conn"`},
		{"a value of the wrong type", "quick = [2]", "[vary]\ncores = [1, \"2\"]", "one.toml:11:13: "},
		{"sheds in a closed loop", "conns =", "shed = true\nconns =", `load.shed is for mode "open" only`},
		{"sheds perhaps", "conns =", "shed = \"some\"\nconns =", "one.toml:9:8: "},
		{"greed", `"closed"`, "\"open\"\nrate = 5\ngreedy = \"slowly\"", `load.greedy is "slowly", want "upload"`},
		{"greedy perhaps", "conns =", "greedy = true\nconns =", "one.toml:9:10: "},
		{"greedy beside a closed loop", "conns =", "greedy = \"pipeline\"\nconns =", `load.greedy is for mode "open" only`},
		{"uploads to files", `"closed"`, "\"open\"\nrate = 5\ngreedy = \"upload\"",
			`load.greedy is "upload", which is not for kind "static"`},
		{"greedy and shed", `"closed"`, "\"open\"\nrate = 5\nshed = true\ngreedy = \"download\"", "load.greedy is beside load.shed"},
		{"an origin of files", "[load]", "[origin]\nconnections = 5\n[load]", `origin.delay and origin.connections are for kind "proxy"`},
		{"a delay without a unit", "[load]", "[origin]\ndelay = \"10\"\n[load]", "one.toml:8:9: "},
		{"an origin that sleeps", "\"static\"\npath = \"/1k.html\"\nlength = 1024\n", "\"proxy\"\npath = \"/a\"\nlength = 1\n" +
			"[origin]\ndelay = \"2s\"\n", "origin.delay is 2s, want at most 1s"},
		{"no connections at all", "\"static\"\npath = \"/1k.html\"\nlength = 1024\n", "\"proxy\"\npath = \"/a\"\nlength = 1\n" +
			"[origin]\nconnections = -1\n", "origin.connections is -1"},
		{"two that vary", "conns = [1, 2]\nquick = [2]", "conns = [1]\n[vary]\ncores = [1, 2]\nheaders = [1, 2]",
			"vary.headers is beside vary.cores"},
		{"one beside several conns", "quick = [2]", "[vary]\ncores = [1, 2]", "load.conns has several counts"},
		{"twice the length", "conns = [1, 2]\nquick = [2]", "conns = [1]\n[vary]\nlength = [1, 2]",
			"vary.length is there, and the key that it stands for has 1024"},
		{"one value", "conns = [1, 2]\nquick = [2]", "conns = [1]\n[vary]\nheaders = [1]", "vary.headers has 1 values"},
		{"no core", "conns = [1, 2]\nquick = [2]", "conns = [1]\n[vary]\ncores = [0, 1]", "vary.cores has 0, want 1 to 64"},
		{"values that go down", "conns = [1, 2]\nquick = [2]", "conns = [1]\n[vary]\nheaders = [2, 1]", "vary.headers has 1 after 2"},
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

// Each value that varies is a scenario in which it stands where it belongs.
func TestEach(t *testing.T) {
	load := func(name string) *Scenario {
		s, err := Load(Files, name)
		require.NoError(t, err)
		return s
	}
	plain := load("static-1k")
	require.Equal(t, []*Scenario{plain}, plain.Each())
	paths := map[string]int{}
	for _, one := range load("proxy-size").Each() {
		require.Equal(t, Point{"length", strconv.Itoa(one.Target.Length)}, one.At)
		paths[one.Target.Path] = one.Target.Length
	}
	require.Equal(t, map[string]int{
		"/0/size.html": 0, "/1024/size.html": 1024, "/10240/size.html": 10240, "/102400/size.html": 102400,
		"/large/1048576/size.html": 1 << 20, "/large/10485760/size.html": 10 << 20,
	}, paths)
	cores := load("static-1k-cores").Each()
	require.Equal(t, 2, cores[1].Shared.Cores)
	require.Equal(t, 1, cores[0].Shared.Cores, "they do not share a value")
	headers := load("static-1k-headers").Each()
	require.Equal(t, Point{"headers", "50"}, headers[3].At)
	require.Equal(t, 50, headers[3].Load.Headers)
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
		{"glob", "t*-1k", []string{"tcp-1k", "tls-proxy-1k", "tls-static-1k", "tls-tcp-1k"}, ""},
		{"list, without repeating", "static-1k, proxy-1k, static-?k", []string{"proxy-1k", "static-1k"}, ""},
		{"nothing matches", "static-1k,statik*", nil, "no scenario matches \"statik*\"; `harness list` names them"},
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
