package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/looptest"
	"atlas/proxy/server"
)

// patience bounds what has to happen; nothing here is measured.
const patience = 20 * time.Second

// rig is a server with its admin listener.
type rig struct {
	*Admin
	*testing.T
	server *server.Server
	log    *looptest.Printed
	level  *slog.LevelVar
	once   sync.Once
}

// parse adds an [admin] table on a free port, unless the text has one.
func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	if !strings.Contains(text, "[admin]") {
		text += "\n[admin]\naddress = \"127.0.0.1:0\"\n"
	}
	cfg, _, err := config.Parse("atlas.toml", []byte(text))
	require.NoError(t, err)
	return cfg
}

// prepare starts the admin listener alone.
func prepare(t *testing.T, cfg *config.Config) *rig {
	t.Helper()
	r := &rig{T: t, log: new(looptest.Printed), level: new(slog.LevelVar)}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: r.level}))
	a, err := Start(Options{Config: cfg.Admin, Version: "v1.2.3", Log: log, Level: r.level})
	require.NoError(t, err)
	r.Admin = a
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	return r
}

// launch starts a server and its admin listener, which end with the test.
func launch(t *testing.T, text string) *rig {
	t.Helper()
	cfg := parse(t, text)
	r := prepare(t, cfg)
	s, err := server.Start(cfg, r.options.Log)
	require.NoError(t, err)
	r.server = s
	t.Cleanup(r.shutdown)
	r.Attach(s)
	return r
}

func (r *rig) shutdown() {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r.server.Shutdown(ctx)
	})
}

// origin is an upstream, by its address.
func origin(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// reply is an answer of the admin listener.
type reply struct {
	Status int
	Header http.Header
	Text   string
}

// ask sends one request to the admin listener, on a connection of its own.
func (r *rig) ask(method, target, body string, fields ...string) reply {
	r.Helper()
	network, address := "tcp", r.Addr()
	if path := config.UnixPath(address); path != "" {
		network, address = "unix", path
	}
	client := &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		},
	}
	host := "127.0.0.1"
	request, err := http.NewRequest(method, "http://"+host+target, strings.NewReader(body))
	require.NoError(r, err)
	for i := 0; i < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
		if fields[i] == "Host" {
			request.Host = fields[i+1]
		}
	}
	response, err := client.Do(request)
	require.NoError(r, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(r, err)
	return reply{response.StatusCode, response.Header, string(text)}
}

func (r *rig) get(target string) reply {
	r.Helper()
	return r.ask("GET", target, "")
}

func (r *rig) status() *Report {
	r.Helper()
	got := r.get("/status")
	require.Equal(r, 200, got.Status, got.Text)
	assert.Equal(r, "application/json", got.Header.Get("Content-Type"))
	said := new(Report)
	decoder := json.NewDecoder(strings.NewReader(got.Text))
	decoder.DisallowUnknownFields()
	require.NoError(r, decoder.Decode(said))
	return said
}

// visit has a client of the server ask for paths, on one connection.
func (r *rig) visit(paths ...string) {
	r.Helper()
	client := &http.Client{Timeout: patience, Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	for _, path := range paths {
		response, err := client.Get("http://" + r.server.Addr() + path)
		require.NoError(r, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(r, err)
		require.NoError(r, response.Body.Close())
	}
}

func (r *rig) eventually(what string, cond func() bool) {
	r.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			require.Fail(r, "never: "+what)
		}
	}
}

// certificate writes one for atlas.test and 127.0.0.1, and its key.
func certificate(t testing.TB, dir string, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"atlas.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	}
	return cert, key
}
