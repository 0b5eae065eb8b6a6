package server

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/config"
	"atlas/proxy/looptest"
	"atlas/proxy/upstream"
)

// All that is wrong is found at once, each at its key, and what Start would refuse
// is no warning.
func TestExamine(t *testing.T) {
	k := newKeys(t)
	for name, leaf := range map[string]looptest.Leaf{
		"a": {Names: []string{"a.test"}}, "b": {Names: []string{"b.test"}},
		"soon": {Names: []string{"a.test"}, NotAfter: time.Now().Add(50 * time.Hour)},
		"late": {Names: []string{"a.test"}, NotAfter: time.Now().Add(-time.Hour)},
		"none": {},
	} {
		looptest.WritePair(t, k.dir, name, k.Issue(t, leaf))
	}
	path := func(name string) string { return filepath.Join(k.dir, name) }
	require.NoError(t, os.WriteFile(path("text"), []byte("nothing\n"), 0o644))
	cert := func(cert, key string) config.Certificate { return config.Certificate{Cert: path(cert), Key: path(key)} }
	good := config.TLS{Cert: path("a.pem"), Key: path("a.key")}
	for _, row := range []struct {
		name   string
		cfg    config.Config
		errors map[string]string // by key, part of the message
		warned map[string]string
	}{
		{"nothing", config.Config{Listen: config.Listen{TLS: &good}}, nil, nil},
		{"everything of TLS", config.Config{Listen: config.Listen{TLS: &config.TLS{
			Cert: path("a.pem"), Key: path("absent"), ClientCA: path("text"), OCSPStaple: path("absent"),
			Certificates: []config.Certificate{cert("a.pem", "b.key"), cert("b.pem", "b.key"), cert("absent", "gone")},
		}}}, map[string]string{
			"listen.tls.key":                  "open " + path("absent") + ": no such file",
			"listen.tls.client_ca":            "text: there is no certificate in it",
			"listen.tls.certificates[0].cert": "private key does not match public key",
			"listen.tls.certificates[2].cert": "absent: no such file",
			"listen.tls.certificates[2].key":  "gone: no such file",
		}, nil},
		{"keys that are none", config.Config{Listen: config.Listen{TLS: &config.TLS{
			Cert: path("a.pem"), Key: path("text"), Certificates: []config.Certificate{cert("b.pem", "b.pem")},
		}}}, map[string]string{
			"listen.tls.key":                 "failed to find any PEM data in key input",
			"listen.tls.certificates[0].key": "found a certificate rather than a key",
		}, nil},
		{"a staple", config.Config{Listen: config.Listen{TLS: &config.TLS{
			Cert: path("a.pem"), Key: path("a.key"), OCSPStaple: path("text")}}},
			map[string]string{"listen.tls.ocsp_staple": "text"}, nil},
		{"certificates that are of no use", config.Config{Listen: config.Listen{TLS: &config.TLS{
			Cert: path("soon.pem"), Key: path("soon.key"),
			Certificates: []config.Certificate{cert("late.pem", "late.key"), cert("none.pem", "none.key")},
		}}}, nil, map[string]string{
			"listen.tls.cert":                 "in 2 days",
			"listen.tls.certificates[0].cert": "the certificate ended on",
			"listen.tls.certificates[1].cert": "for no name",
		}},
		{"a root", config.Config{
			Listen:      config.Listen{Mode: config.Static},
			StaticFiles: config.StaticFiles{Root: path("text")},
		}, map[string]string{"static_files.root": "not a directory"}, nil},
		{"more connections than files", config.Config{Limits: config.Limits{Connections: 1 << 40}},
			nil, map[string]string{"limits.connections": "too few file descriptors for anything else"}},
		{"addresses of others", config.Config{Listen: config.Listen{Address: "192.0.2.1"}},
			map[string]string{"listen.address": "this machine has no address 192.0.2.1"}, nil},
		{"authorities that nobody uses", config.Config{
			Listen:      config.Listen{Mode: config.Static},
			StaticFiles: config.StaticFiles{Root: k.dir},
			Upstreams:   []config.Upstream{{TLS: true, CA: path("absent")}},
		}, nil, nil},
		{"upstreams", config.Config{Upstreams: []config.Upstream{
			{Address: "unix:" + path("text")}, {Address: "127.0.0.1", TLS: true, CA: path("text")}, {CA: path("absent")},
		}}, map[string]string{"upstreams[1].ca": "there is no certificate in it"},
			map[string]string{"upstreams[0].address": "is no socket now"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			wrong, warned := map[string]string{}, map[string]string{}
			row.cfg.AccessLog.Format = "off"
			for _, f := range Examine(&row.cfg) {
				if f.Warning {
					warned[f.Key] = f.Message
				} else {
					wrong[f.Key] = f.Message
				}
			}
			for _, side := range []struct{ want, got map[string]string }{{row.errors, wrong}, {row.warned, warned}} {
				assert.Len(t, side.got, len(side.want), "%v", side.got)
				for key, part := range side.want {
					assert.Contains(t, side.got[key], part, key)
				}
			}
			if row.cfg.Listen.Address != "" {
				return // it is not opened by build
			}
			s := &Server{log: new(logBook).logger()}
			s.group = upstream.NewGroup(t.Context(), upstream.Options{Strategy: balance.RoundRobin})
			next, err := s.build(t.Context(), &row.cfg)
			assert.Equal(t, len(row.errors) > 0, err != nil, "%v", err)
			if next != nil {
				assert.NoError(t, next.release())
			}
		})
	}
}

// Where the access log may be written is found out without writing it.
func TestExamineAccessLog(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	require.NoError(t, os.WriteFile(there, []byte("line\n"), 0o600))
	for path, want := range map[string]string{
		"-": "", "stderr": "", there: "", filepath.Join(dir, "new"): "", dir: "is a directory",
		filepath.Join(dir, "no", "log"): "no such file or directory", filepath.Join(there, "log"): "not a directory",
	} {
		found := Examine(&config.Config{AccessLog: config.AccessLog{Format: "json", Path: path}})
		if want == "" {
			assert.Empty(t, found, path)
		} else if assert.Len(t, found, 1, path) {
			assert.Equal(t, "access_log.path", found[0].Key)
			assert.Contains(t, found[0].Message, path+": "+want)
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left behind")
}

// A name that is no name is found without asking anybody.
func TestExamineNames(t *testing.T) {
	cfg := &config.Config{
		Listen:    config.Listen{Address: "::1", Mode: config.HTTP},
		Upstreams: []config.Upstream{{Address: "127.0.0.1"}, {Address: "unix:/x"}, {Address: "host..invalid"}},
	}
	found := ExamineNames(context.Background(), cfg)
	require.Len(t, found, 1)
	assert.Equal(t, "upstreams[2].address", found[0].Key)
	cfg.Listen.Mode = config.Static
	assert.Empty(t, ExamineNames(context.Background(), cfg))
}
