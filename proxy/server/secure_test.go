package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// keys is a folder with certificates.
type keys struct {
	*looptest.Authority
	t   testing.TB
	dir string
}

func newKeys(t testing.TB) *keys {
	t.Helper()
	return &keys{looptest.NewAuthority(t), t, t.TempDir()}
}

// pair issues and writes a certificate, and returns the lines that name it.
func (k *keys) pair(file string, names ...string) (lines string) {
	k.t.Helper()
	cert, key := looptest.WritePair(k.t, k.dir, file, k.Issue(k.t, looptest.Leaf{Names: names}))
	return fmt.Sprintf("cert = %q\nkey = %q\n", cert, key)
}

// client is a client that trusts the authority, and asks for a name.
func (k *keys) client(name string, certs ...*tls.Certificate) *http.Client {
	cfg := &tls.Config{RootCAs: k.Pool, ServerName: name}
	for _, c := range certs {
		cfg.Certificates = append(cfg.Certificates, *c)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}, Timeout: patience}
	k.t.Cleanup(c.CloseIdleConnections)
	return c
}

// fetch asks for a path and wants 200.
func fetch(t testing.TB, c *http.Client, url string) (body string, state *tls.ConnectionState) {
	t.Helper()
	resp, err := c.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(text))
	return string(text), resp.TLS
}

func TestStaticTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		large := looptest.Pattern(3<<20 + 5)
		cfg := looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test"))
		root := parse(t, cfg).StaticFiles.Root
		require.NoError(t, os.WriteFile(filepath.Join(root, "large"), large, 0o644))
		s := launch(t, cfg, nil)
		c := k.client("a.test")
		body, state := fetch(t, c, "https://"+s.Addr()+"/a")
		assert.Equal(t, "hello", body)
		assert.EqualValues(t, tls.VersionTLS13, state.Version)
		assert.Equal(t, tls.X25519MLKEM768, state.CurveID)
		body, _ = fetch(t, c, "https://"+s.Addr()+"/large")
		assert.True(t, bytes.Equal(large, []byte(body)))
		plain := s.dial()
		plain.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, text := plain.receive()
		assert.Equal(t, 400, resp.StatusCode)
		assert.Contains(t, text, "speaks HTTPS")
		plain.ends()
		require.NoError(t, plain.Close())
		assert.True(t, s.shutdown(patience))
	})
}

// Both sides speak TLS, and the upstream learns how it was asked and by whom.
func TestProxyTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		seen := make(chan http.Header, 10)
		up := k.origin("up.test", func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %d", r.Method, len(body))
		})
		ca := k.WriteCert(t, k.dir, "ca")
		text := looptest.ProxyConfig(engine, []string{up}, "tls = true", `server_name = "up.test"`, fmt.Sprintf("ca = %q", ca),
			"[listen.tls]", k.pair("a", "a.test"), fmt.Sprintf("client_ca = %q", ca), `client_auth = "optional"`)
		s := launch(t, text, nil)
		me := k.Issue(t, looptest.Leaf{Subject: "me"})
		for range 3 {
			body, _ := fetch(t, k.client("a.test", me), "https://"+s.Addr()+"/")
			assert.Equal(t, "GET 0", body)
			h := <-seen
			assert.Equal(t, "https", h.Get("X-Forwarded-Proto"))
			assert.Equal(t, ":"+base64.StdEncoding.EncodeToString(me.Certificate[0])+":", h.Get("Client-Cert"))
		}
		// Nobody says so for himself.
		request, _ := http.NewRequest("POST", "https://"+s.Addr()+"/", bytes.NewReader(make([]byte, 1<<20)))
		request.Header.Set("Client-Cert", ":forged:")
		request.Header.Set("Client-Cert-Chain", ":forged:")
		resp, err := k.client("a.test").Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "POST 1048576", string(body))
		h := <-seen
		assert.Empty(t, h.Values("Client-Cert"))
		assert.Empty(t, h.Values("Client-Cert-Chain"))
		require.NoError(t, resp.Body.Close())
		assert.True(t, s.shutdown(patience))
	})
}

// origin is an upstream that speaks TLS.
func (k *keys) origin(name string, handler http.HandlerFunc) (address string) {
	k.t.Helper()
	cert := k.Issue(k.t, looptest.Leaf{Names: []string{name}})
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}})
	require.NoError(k.t, err)
	s := &http.Server{Handler: handler}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln) // it ends when it is closed
	}()
	k.t.Cleanup(func() {
		assert.NoError(k.t, s.Close())
		<-served
	})
	return ln.Addr().String()
}

// An upstream whose certificate is not good gets no request.
func TestUpstreamNotTrusted(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k, stranger := newKeys(t), newKeys(t)
		asked := func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
		ca := fmt.Sprintf("ca = %q", k.WriteCert(t, k.dir, "ca"))
		byAddress := strings.Replace(ca, "ca", "server_name = \"127.0.0.1\"\nca", 1)
		for name, up := range map[string]struct{ address, keys, status string }{
			"another authority": {stranger.origin("up.test", asked), ca, "tls_certificate_error"},
			"another name":      {k.origin("other.test", asked), ca, "tls_certificate_error"},
			"no name at all":    {k.origin("up.test", asked), byAddress, "tls_certificate_error"},
			"the system's":      {k.origin("up.test", asked), "", "tls_certificate_error"},
			"no TLS":            {origin(t, asked), ca, "tls_protocol_error"},
		} {
			t.Run(name, func(t *testing.T) {
				lines := up.keys
				if !strings.Contains(lines, "server_name") {
					lines += "\nserver_name = \"up.test\""
				}
				s := launch(t, looptest.ProxyConfig(engine, []string{up.address}, "tls = true", lines), nil)
				c := s.dial()
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, _ := c.receive()
				assert.Equal(t, 502, resp.StatusCode)
				assert.Contains(t, resp.Header.Get("Proxy-Status"), "error="+up.status)
				assert.NotZero(t, s.count("upstream_errors_total", "tls"))
			})
		}
	})
}

// count is the value of a counter.
func (r *running) count(name, of string) int64 {
	for _, v := range r.stats.Snapshot(nil) {
		if v.Name == name && v.Of == of {
			return v.Count
		}
	}
	r.t.Fatalf("there is no counter %s %s", name, of)
	return 0
}

func TestCertificatesByName(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("default", "default.test"),
			"[[listen.tls.certificates]]", k.pair("a", "a.test", "*.b.test"),
			"[[listen.tls.certificates]]", k.pair("c", "exact.b.test")), nil)
		for asked, want := range map[string]string{
			"a.test": "a.test", "x.b.test": "a.test", "X.B.test": "a.test", "exact.b.test": "exact.b.test",
			"default.test": "default.test", "b.test": "default.test", "x.y.b.test": "default.test",
			"nobody.test": "default.test", "": "default.test",
		} {
			c, err := tls.Dial("tcp", s.Addr(), &tls.Config{ServerName: asked, InsecureSkipVerify: true})
			require.NoError(t, err)
			assert.Equal(t, want, c.ConnectionState().PeerCertificates[0].DNSNames[0], asked)
			require.NoError(t, c.Close())
		}
	})
}

// New files are taken over while connections come and go; what does not match
// leaves the old ones in use, and is told.
func TestCertificatesSwap(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "first.test")), nil)
		names := func() []string {
			c, err := tls.Dial("tcp", s.Addr(), &tls.Config{InsecureSkipVerify: true})
			if !assert.NoError(t, err) {
				return nil
			}
			defer c.Close()
			_, err = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			assert.NoError(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if assert.NoError(t, err) {
				assert.Equal(t, 200, resp.StatusCode)
			}
			return c.ConnectionState().PeerCertificates[0].DNSNames
		}
		var load sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					names()
				}
			})
		}
		assert.Equal(t, []string{"first.test"}, names())
		k.pair("a", "second.test")
		eventually(t, "the second", func() bool { return slices.Equal(names(), []string{"second.test"}) })

		// A key that is not the certificate's. On a busy machine the second may have been
		// seen half written, and was complained of.
		complaints := func() []string { return s.log.lines("private key does not match public key") }
		before := len(complaints())
		third := k.Issue(t, looptest.Leaf{Names: []string{"third.test"}})
		certFile, keyFile := looptest.WritePair(t, t.TempDir(), "x", third)
		text, err := os.ReadFile(certFile)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(k.dir, "a.pem"), text, 0o644))
		eventually(t, "the complaint", func() bool { return len(complaints()) > before })
		assert.Equal(t, []string{"second.test"}, names())
		// It fits after all. The file is replaced, as an editor does.
		require.NoError(t, os.Rename(keyFile, filepath.Join(k.dir, "a.key")))
		eventually(t, "the third", func() bool { return slices.Equal(names(), []string{"third.test"}) })

		require.NoError(t, os.Remove(filepath.Join(k.dir, "a.pem")))
		eventually(t, "the complaint", func() bool { return len(s.log.lines("a.pem: no such file")) == 1 })
		assert.Equal(t, []string{"third.test"}, names())
		cancel()
		load.Wait()
	})
}

// A folder that is a link, as of a ConfigMap, is followed when it leads elsewhere.
func TestCertificatesBehindLinks(t *testing.T) {
	k := newKeys(t)
	folder := t.TempDir()
	for _, name := range []string{"first", "second"} {
		require.NoError(t, os.Mkdir(filepath.Join(folder, name), 0o755))
		looptest.WritePair(t, filepath.Join(folder, name), "tls", k.Issue(t, looptest.Leaf{Names: []string{name + ".test"}}))
	}
	link := func(name string) {
		require.NoError(t, os.Symlink(name, filepath.Join(folder, "new")))
		require.NoError(t, os.Rename(filepath.Join(folder, "new"), filepath.Join(folder, "..current")))
	}
	link("first")
	for _, file := range []string{"tls.pem", "tls.key"} {
		require.NoError(t, os.Symlink(filepath.Join("..current", file), filepath.Join(folder, file)))
	}
	s := launch(t, looptest.StaticConfig(t, loop.Netpoll, "[listen.tls]", fmt.Sprintf("cert = %q\nkey = %q",
		filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key"))), nil)
	link("second")
	eventually(t, "the second", func() bool {
		cert, err := s.handshakes.current.Load().GetCertificate(&tls.ClientHelloInfo{})
		return err == nil && cert.Leaf.DNSNames[0] == "second.test"
	})
	assert.Empty(t, s.log.lines("ERROR"))
}

func TestCertificateErrors(t *testing.T) {
	k := newKeys(t)
	looptest.WritePair(t, k.dir, "a", k.Issue(t, looptest.Leaf{Names: []string{"a.test"}}))
	looptest.WritePair(t, k.dir, "b", k.Issue(t, looptest.Leaf{Names: []string{"b.test"}}))
	require.NoError(t, os.WriteFile(filepath.Join(k.dir, "text"), []byte("nothing\n"), 0o644))
	path := func(name string) string { return filepath.Join(k.dir, name) }
	a := config.TLS{Cert: path("a.pem"), Key: path("a.key")}
	for _, row := range []struct {
		name   string
		change func(*config.TLS)
		want   []string
	}{
		{"no key", func(c *config.TLS) { c.Key = path("none") }, []string{"[listen.tls]", "none: no such file"}},
		{"another key", func(c *config.TLS) { c.Key = path("b.key") },
			[]string{"[listen.tls] cert", "a.pem", "b.key", "private key does not match public key"}},
		{"no certificate in it", func(c *config.TLS) { c.Cert = path("text") }, []string{"text", "failed to find any PEM"}},
		{"another one's", func(c *config.TLS) {
			c.Certificates = []config.Certificate{{Cert: path("b.pem"), Key: path("a.key")}}
		}, []string{"[[listen.tls.certificates]] cert", "b.pem"}},
		{"no authority", func(c *config.TLS) { c.ClientCA = path("none") }, []string{"client_ca", "no such file"}},
		{"an authority that is none", func(c *config.TLS) { c.ClientCA = path("text") },
			[]string{"client_ca", "text", "there is no certificate in it"}},
		{"no staple", func(c *config.TLS) { c.OCSPStaple = path("none") }, []string{"ocsp_staple", "no such file"}},
		{"a staple that is none", func(c *config.TLS) { c.OCSPStaple = path("text") }, []string{"ocsp_staple", "text"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := a
			row.change(&cfg)
			_, err := openSecure(&cfg, nil, new(handshakes), new(logBook).logger())
			require.Error(t, err)
			for _, want := range row.want {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	_, _, err := upstreamTLS(&config.Upstream{Name: "u", TLS: true, CA: path("text")}, config.HTTP)
	assert.ErrorContains(t, err, "[[upstreams]] u: ca: there is no certificate in it")
}

func TestExpiry(t *testing.T) {
	k := newKeys(t)
	log := new(logBook)
	now := time.Now()
	var cfg config.TLS
	cert, key := looptest.WritePair(t, k.dir, "a", k.Issue(t, looptest.Leaf{
		Names: []string{"a.test", "b.test"}, NotAfter: now.Add(expiryWarning + time.Hour)}))
	cfg.Cert, cfg.Key = cert, key
	lasting := new(handshakes)
	s, err := openSecure(&cfg, nil, lasting, log.logger())
	require.NoError(t, err)
	s.use()
	assert.Empty(t, log.lines(""))
	for _, step := range []struct {
		after  time.Duration
		warned int // so far
	}{
		{30 * time.Minute, 0}, {2 * time.Hour, 1}, {3 * time.Hour, 1}, {25 * time.Hour, 1}, {27 * time.Hour, 2},
	} {
		s.look(now.Add(step.after))
		assert.Len(t, log.lines("certificate ends soon"), step.warned, "after %v", step.after)
	}
	reloaded, err := openSecure(&cfg, nil, lasting, log.logger())
	require.NoError(t, err)
	reloaded.warnExpiry(now.Add(28 * time.Hour))
	assert.Len(t, log.lines("certificate ends soon"), 2, "a reload is no reason to say it again")
	assert.Contains(t, log.lines("certificate ends soon")[0], `cert=`+cert+` names="a.test b.test"`)
	s.look(now.Add(expiryWarning + 2*time.Hour))
	assert.Len(t, log.lines("certificate has ended"), 1)
	looptest.WritePair(t, k.dir, "a", k.Issue(t, looptest.Leaf{Names: []string{"a.test"}}))
	s.look(now.Add(expiryWarning + 50*time.Hour))
	assert.Len(t, log.lines("certificate has ended"), 1)
}

// Sessions go on for a day or more, also in the process that follows; never for
// clients of other authorities.
func TestTickets(t *testing.T) {
	k := newKeys(t)
	var cfg config.TLS
	cfg.Cert, cfg.Key = looptest.WritePair(t, k.dir, "a", k.Issue(t, looptest.Leaf{Names: []string{"a.test"}}))
	cfg.ClientCA, cfg.ClientAuth = k.WriteCert(t, k.dir, "ca"), config.Optional
	now := time.Now()
	old := new(Server)
	s, err := openSecure(&cfg, nil, &old.handshakes, new(logBook).logger())
	require.NoError(t, err)
	s.use()
	first := s.handshakes.tickets.keys[0]
	s.look(now.Add(ticketLife - time.Minute))
	assert.Equal(t, [][32]byte{first}, s.handshakes.tickets.keys)
	for day := range 4 {
		s.look(now.Add(time.Duration(day+1)*ticketLife + time.Minute))
	}
	assert.Len(t, s.handshakes.tickets.keys, ticketKeys)
	assert.NotContains(t, s.handshakes.tickets.keys, first)

	kept := old.handshakes.note()
	following := new(Server)
	following.handshakes.adopt(ticketsNote{})
	assert.Nil(t, following.handshakes.note().Keys)
	next, err := openSecure(&cfg, nil, &following.handshakes, new(logBook).logger())
	require.NoError(t, err)
	following.handshakes.adopt(kept)
	next.use()
	assert.Equal(t, kept.Keys, following.handshakes.note().Keys)

	looptest.NewAuthority(t).WriteCert(t, k.dir, "ca")
	next.look(now)
	assert.Len(t, next.handshakes.tickets.keys, 1)
	assert.NotContains(t, kept.Keys, next.handshakes.tickets.keys[0])
}

// The key of one process opens the tickets of another.
func TestResumption(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		text := looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test"))
		s := launch(t, text, nil)
		cfg := &tls.Config{RootCAs: k.Pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
			cfg.MaxVersion = version
			resumed := func(address string) bool {
				c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: patience}
				_, state := fetch(t, c, "https://"+address+"/a")
				return state.DidResume
			}
			assert.False(t, resumed(s.Addr()))
			assert.True(t, resumed(s.Addr()))
			legacy, err := s.Legacy()
			require.NoError(t, err)
			legacy.Close() // a process elsewhere: only the notes are of use there
			next := launchWith(t, text, nil, Estate{Legacy: legacy})
			assert.True(t, resumed(next.Addr()))
			cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		}
		assert.EqualValues(t, 2, s.count("tls_resumed_total", ""))
		assert.EqualValues(t, 4, s.count("tls_handshakes_total", ""))
	})
}

// Requests of a client go on over a swap, and a drain ends them in order.
func TestDrainTLS(t *testing.T) {
	unhurried(t, 3*time.Second) // which one that has rested takes
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test")), nil)
		dial := func() *tls.Conn {
			c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			return c
		}
		ask := func(c *tls.Conn) {
			_, err := io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(text))
		}
		idle, fresh := dial(), dial()
		ask(idle)
		ended := s.drain(patience)
		ask(fresh) // it has not asked for anything yet
		for _, c := range []*tls.Conn{fresh, idle} {
			rest, err := io.ReadAll(c)
			assert.NoError(t, err, "close_notify")
			assert.Empty(t, rest)
		}
		assert.True(t, <-ended)
	})
}
