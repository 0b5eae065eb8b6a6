package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// Each testdata/name.toml is read, and what Parse says about it is in
// name.golden.
func TestParseGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			golden(t, strings.TrimSuffix(file, ".toml"), report(filepath.Base(file), text))
		})
	}
}

// report is all that Parse says, as a user sees it.
func report(file string, text []byte) string {
	var b strings.Builder
	config, warnings, err := Parse(file, text)
	for i := range warnings {
		fmt.Fprintln(&b, warnings[i].String())
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if config != nil {
		tls := config.Listen.TLS
		config.Listen.TLS = nil           // a pointer prints as a number
		for i := range config.Upstreams { // the same
			if up := &config.Upstreams[i]; up.HealthCheck != nil {
				fmt.Fprintf(&b, "%s: %+v\n", up.Name, *up.HealthCheck)
				up.HealthCheck = nil
			}
		}
		fmt.Fprintf(&b, "%+v\n", *config)
		if tls != nil {
			fmt.Fprintf(&b, "%+v\n", *tls)
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(name+".golden", []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(name + ".golden")
	require.NoError(t, err, "make it with: go test ./proxy/config -update")
	if !assert.Equal(t, string(want), got) {
		require.NoError(t, os.WriteFile(name+".got", []byte(got), 0o644))
	}
}

// The sample of the README loads as printed, whatever its mode is set to.
func TestParseSample(t *testing.T) {
	text, err := os.ReadFile("testdata/seed.toml")
	require.NoError(t, err)
	for mode, unused := range map[Mode][]string{
		HTTP:   {"static_files"},
		TCP:    {"static_files"},
		Static: {"upstreams", "routing"},
	} {
		t.Run(string(mode), func(t *testing.T) {
			sample := strings.Replace(string(text), `mode = "http"`, fmt.Sprintf("mode = %q", mode), 1)
			config, warnings, err := Parse("atlas.toml", []byte(sample))
			require.NoError(t, err)
			var keys []string
			for _, w := range warnings {
				keys = append(keys, w.Key)
			}
			assert.Equal(t, unused, keys)
			tunnel := time.Hour
			if mode == TCP {
				tunnel = 10 * time.Minute
			}
			assert.Equal(t, &Config{
				File: "atlas.toml",
				Listen: Listen{
					Address: "0.0.0.0", Port: 8080, Mode: mode, Workers: 4, Engine: Auto, Pin: true,
					TLS: &TLS{Cert: "/path/to/cert.pem", Key: "/path/to/key.pem", MinVersion: TLS12},
				},
				Upstreams: []Upstream{{Name: "backend", Address: "127.0.0.1", Port: 8081, Weight: 1}},
				Routing:   Routing{Strategy: balance.RoundRobin, Retries: 2, RetryBudget: 20, Queue: 1024},
				StaticFiles: StaticFiles{
					Root: "/var/www/html", Index: "index.html", CacheBytes: 64 << 20, Precompressed: true,
				},
				Timeouts: Timeouts{
					Header: 10 * time.Second, Body: time.Minute, Write: time.Minute, Idle: 75 * time.Second,
					Handshake: 10 * time.Second, Connect: 3 * time.Second, Upstream: time.Minute, Pool: time.Minute,
					Queue: 3 * time.Second, Tunnel: tunnel, Drain: 30 * time.Second, Upgrade: time.Minute,
				},
				Limits:    Limits{HeaderBytes: 16384, HeaderFields: 100, RateMin: 240, RateBy: "address"},
				AccessLog: AccessLog{Format: "json", Path: "-", Sample: 1},
				Admin:     Admin{SocketMode: "0600"},
			}, config)
		})
	}
}

func TestParseValues(t *testing.T) {
	for _, row := range []struct {
		name, line string
		got        func(*Config) any
		want       any
	}{
		{"an IPv6 address", `listen.address = "2001:db8::1"`, address, "2001:db8::1"},
		{"brackets are taken off", `listen.address = "[::]"`, address, "::"},
		{"a zone stays", `listen.address = "fe80::1%eth0"`, address, "fe80::1%eth0"},
		{"a host name", `listen.address = "app-1.example.com."`, address, "app-1.example.com."},
		{"any port", `listen.backlog = 0xff`, func(c *Config) any { return c.Listen.Backlog }, 255},
		{"bytes as a number", `static_files.cache_bytes = 1_000`, cache, int64(1000)},
		{"no bytes", `static_files.cache_bytes = 0`, cache, int64(0)},
		{"binary units", `static_files.cache_bytes = "3KiB"`, cache, int64(3072)},
		{"decimal units", `static_files.cache_bytes = "3 MB"`, cache, int64(3_000_000)},
		{"bytes of bytes", `static_files.cache_bytes = "30B"`, cache, int64(30)},
		{"a gigabyte", `static_files.cache_bytes = "1GiB"`, cache, int64(1 << 30)},
		{"a composed duration", `timeouts.idle = "1m30s"`, idle, 90 * time.Second},
		{"a fraction", `timeouts.idle = "0.5s"`, idle, 500 * time.Millisecond},
		{"the shortest", `timeouts.idle = "1ms"`, idle, time.Millisecond},
		{"the longest", `timeouts.idle = "24h"`, idle, 24 * time.Hour},
		{"a literal string", `static_files.index = 'a b.htm'`, index, "a b.htm"},
		{"an escape", `static_files.index = "\u00e4.htm"`, index, "ä.htm"},
		{"false", `listen.pin = false`, func(c *Config) any { return c.Listen.Pin }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := "listen.port = 0\nlisten.mode = 'static'\nlisten.root = '/srv'\n" + row.line
			config, _, err := Parse("atlas.toml", []byte(text))
			require.NoError(t, err)
			assert.Equal(t, row.want, row.got(config))
		})
	}
}

func address(c *Config) any { return c.Listen.Address }
func index(c *Config) any   { return c.StaticFiles.Index }
func cache(c *Config) any   { return c.StaticFiles.CacheBytes }
func idle(c *Config) any    { return c.Timeouts.Idle }

// A file that is all wrong ends, soon and with a list that can be read.
func TestParseBounds(t *testing.T) {
	for _, row := range []struct{ name, text string }{
		{"unknown keys", numbered("a%d = 1\n", 50_000)},
		{"unknown tables", numbered("[a%d]\n", 50_000)},
		{"upstreams", strings.Repeat("[[upstreams]]\n", 50_000)},
		{"one key", "[listen]\n" + strings.Repeat("port = 1\n", 50_000)},
		{"nested tables", "a = " + strings.Repeat("{a = ", 100_000)},
		{"nested arrays", "a = " + strings.Repeat("[", 900_000)},
		{"one line", "a = '" + strings.Repeat("x", 900_000) + "'"},
		{"too large", strings.Repeat("#\n", textBytesMax)},
	} {
		t.Run(row.name, func(t *testing.T) {
			start := time.Now()
			_, _, err := Parse("atlas.toml", []byte(row.text))
			assert.Less(t, time.Since(start), time.Minute, "it grows with the square of the text")
			var errs Errors
			require.ErrorAs(t, err, &errs)
			assert.LessOrEqual(t, len(errs), errorsMax)
			assert.Less(t, len(err.Error()), 100_000)
		})
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestErrorsAs(t *testing.T) {
	_, _, err := Parse("atlas.toml", []byte("x = 1"))
	var first *Error
	require.ErrorAs(t, err, &first)
	assert.Equal(t, 1, first.Line)
	assert.Equal(t, "x", first.Key)
	assert.Equal(t, "x = 1", first.Source)
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/seed.toml")
	require.NoError(b, err)
	for b.Loop() {
		if _, _, err := Parse("atlas.toml", text); err != nil {
			b.Fatal(err)
		}
	}
}
