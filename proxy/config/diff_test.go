package config

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, text string) *Config {
	t.Helper()
	cfg, _, err := Parse("atlas.toml", []byte(text))
	require.NoError(t, err)
	return cfg
}

func TestDiff(t *testing.T) {
	const base = "[listen]\nport = 80\n[[upstreams]]\nname = \"a\"\naddress = \"10.0.0.1\"\nport = 1\n" +
		"[[upstreams]]\nname = \"b c\"\naddress = \"unix:/run/b\"\n"
	for _, row := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing", base, base + "# a comment\n", nil},
		{"a default that is written", base, base + "[timeouts]\nidle = \"75s\"\n", nil},
		{"some keys", base, base + "[timeouts]\nidle = \"1m\"\n[limits]\nbody_bytes = \"1KiB\"\n" +
			"[routing]\ntrusted_proxies = [\"10.0.0.0/8\"]\n", []string{
			`routing.trusted_proxies: [] -> ["10.0.0.0/8"] live`,
			`timeouts.idle: "1m15s" -> "1m" live`,
			`limits.body_bytes: 0 -> 1024 live`,
		}},
		{"upstreams by name", base,
			"[listen]\nport = 80\n[[upstreams]]\nname = \"d\"\naddress = \"d.test\"\nport = 4\n" +
				"[[upstreams]]\nname = \"a\"\naddress = \"10.0.0.1\"\nport = 1\nweight = 3\n[upstreams.health_check]\n", []string{
				`upstreams.a.weight: 1 -> 3 live`,
				`upstreams.a.health_check: new, there live`,
				`upstreams."b c": gone, was unix:/run/b live`,
				`upstreams.d: new, d.test:4 live`,
			}},
		{"a check", base + "[upstreams.health_check]\npath = \"/a\"\n", base + "[upstreams.health_check]\npath = \"/b\"\n", []string{
			`upstreams."b c".health_check.path: "/a" -> "/b" live`,
		}},
		{"TLS", base, "[listen]\nport = 80\n[listen.tls]\ncert = \"c\"\nkey = \"k\"\n" + base[len("[listen]\nport = 80\n"):], []string{
			`listen.tls: new, there new connections`,
		}},
		{"what a process cannot change", base, "[listen]\nport = 80\nworkers = 2\nengine = \"netpoll\"\nmode = \"tcp\"\n" +
			base[len("[listen]\nport = 80\n"):], []string{
			`listen.mode: "http" -> "tcp" needs an upgrade`,
			`listen.workers: 0 -> 2 needs an upgrade`,
			`listen.engine: "auto" -> "netpoll" needs an upgrade`,
			`timeouts.tunnel: "1h" -> "10m" live`,
		}},
		{"http to static", base, base + "\n[static_files]\nroot = \".\"\n", []string{`static_files.root: new, "." live`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			old, new := read(t, row.old), read(t, row.new)
			var got []string
			for _, c := range Diff(old, new) {
				got = append(got, c.String()+" "+string(c.Reload))
			}
			assert.Equal(t, row.want, got)
			assert.Len(t, Diff(new, old), len(row.want), "the other way there are as many")
			assert.Equal(t, read(t, row.old), old, "nothing is changed")
		})
	}
}

// What the environment has said is not shown.
func TestDiffHides(t *testing.T) {
	reading := func(port string) *Reading {
		r, err := Read("atlas.toml", []byte("[listen]\nport = \"${PORT}\"\nmode = \"static\"\nroot = \"${ROOT}/files\"\n"),
			func(name string) (string, bool) {
				return map[string]string{"PORT": port, "ROOT": "/secret"}[name], true
			})
		require.NoError(t, err)
		return r
	}
	old, new := reading("8080"), reading("8081")
	new.Config.StaticFiles.Root = "/secret/other"
	changes := Diff(old.Config, new.Config)
	old.Hide(changes)
	new.Hide(changes)
	assert.Equal(t, []Change{
		{"listen.port", "${PORT}", "${PORT}", NewConnections},
		{"static_files.root", `"${ROOT}/files"`, `"${ROOT}/other"`, Live},
	}, changes)
}

func TestDiffCertificates(t *testing.T) {
	text := func(more string) *Config {
		return read(t, "[listen]\nport = 1\nmode = \"static\"\nroot = \".\"\n[listen.tls]\ncert = \"c\"\nkey = \"k\"\n"+more)
	}
	const a, b = "[[listen.tls.certificates]]\ncert = \"a\"\nkey = \"a\"\n", "[[listen.tls.certificates]]\ncert = \"b\"\nkey = \"b\"\n"
	assert.Empty(t, Diff(text(a+b), text(b+a)))
	assert.Equal(t, []Change{
		{certificates, `"a"`, "", NewConnections}, {certificates, "", `"b"`, NewConnections},
	}, Diff(text(a), text(b)))
}
