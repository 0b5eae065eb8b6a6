package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// requireInstalled skips where a program to talk to is not installed.
func requireInstalled(t *testing.T, program string) (path string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil { // sbin is not in everybody's PATH
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

// step is what to send to a program when it has printed something so many times.
type step struct {
	await string
	times int
	send  string
}

// command runs a program and returns what it prints. It may end before the last
// step.
func command(t *testing.T, steps []step, name string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	out := new(logBook)
	c.Stdout, c.Stderr = out, out
	stdin, err := c.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, looptest.Start(c))
	ended := make(chan error, 1)
	printed := func(s step) bool { return strings.Count(out.String(), s.await) >= s.times }
	go func() { ended <- c.Wait() }()
	for _, s := range steps {
		for end := time.Now().Add(patience); !printed(s) && len(ended) == 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		_, _ = io.WriteString(stdin, s.send) // it may have ended
	}
	_ = stdin.Close()
	err = <-ended
	return out.String(), err
}

func TestCurl(t *testing.T) {
	requireInstalled(t, "curl")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		body := looptest.Pattern(10 << 20)
		up := k.origin("up.test", func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			w.Header().Set("X-Client-Cert", fmt.Sprint(r.Header.Get("Client-Cert") != ""))
			_, _ = w.Write(got)
		})
		ca := k.WriteCert(t, k.dir, "ca")
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, "tls = true", `server_name = "up.test"`, fmt.Sprintf("ca = %q", ca),
			"[listen.tls]", k.pair("a", "a.test"), fmt.Sprintf("client_ca = %q", ca), `client_auth = "optional"`), nil)
		_, port, _ := net.SplitHostPort(s.Addr())
		file := filepath.Join(k.dir, "body")
		require.NoError(t, os.WriteFile(file, body, 0o644))
		cert, key := looptest.WritePair(t, k.dir, "me", k.Issue(t, looptest.Leaf{Subject: "me"}))
		for _, version := range []string{"1.2", "1.3"} {
			got := filepath.Join(k.dir, "got")
			args := []string{"-sS", "--tlsv" + version, "--tls-max", version, "--cacert", ca, "--cert", cert, "--key", key,
				"--resolve", "a.test:" + port + ":127.0.0.1", "--data-binary", "@" + file, "-o", got, "-D", "-",
				"-w", "%{http_code} %{num_connects}\n", "https://a.test:" + port + "/", "--next"}
			args = append(args, args[:len(args)-1]...) // the same again, on the connection that is there
			out, err := command(t, nil, "curl", args...)
			require.NoError(t, err, out)
			assert.Contains(t, out, "200 1\n")
			assert.Contains(t, out, "200 0\n")
			assert.Equal(t, 2, strings.Count(out, "X-Client-Cert: true"), out)
			text, err := os.ReadFile(got)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(body, text))
		}
		assert.True(t, s.shutdown(patience))
	})
}

// openssl is s_client at a server.
func (r *running) openssl(k *keys, steps []step, args ...string) string {
	r.t.Helper()
	ca := k.WriteCert(r.t, k.dir, "ca")
	args = append([]string{"s_client", "-connect", r.Addr(), "-servername", "a.test", "-CAfile", ca,
		"-verify_return_error"}, args...)
	out, _ := command(r.t.(*testing.T), steps, "openssl", args...) // its status says little
	return out
}

const getA = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"

// askOnce is a session with one request.
var askOnce = []step{{"Verify return code", 1, getA}, {"hello", 1, ""}}

func TestOpensslClient(t *testing.T) {
	requireInstalled(t, "openssl")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test")), nil)
		out := s.openssl(k, askOnce, "-tls1_3", "-alpn", "h2,http/1.1")
		assert.Contains(t, out, "Verify return code: 0 (ok)")
		assert.Contains(t, out, "ALPN protocol: http/1.1")
		assert.Contains(t, out, "hello")
		assert.Contains(t, s.openssl(k, askOnce, "-tls1_2"), "hello")

		assert.NotContains(t, s.openssl(k, askOnce, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), "hello")

		// New keys between two requests, ours asked for as well.
		out = s.openssl(k, []step{{"Verify return code", 1, getA}, {"hello", 1, "K\n"}, {"KEYUPDATE", 1, "k\n"},
			{"KEYUPDATE", 2, "K\n"}, {"KEYUPDATE", 3, getA}, {"hello", 2, ""}}, "-tls1_3")
		assert.Equal(t, 3, strings.Count(out, "KEYUPDATE"), out)
		assert.Equal(t, 2, strings.Count(out, "hello"), out)

		// A client that wants to renegotiate loses its connection; nobody else does.
		other := k.client("a.test")
		fetch(t, other, "https://"+s.Addr()+"/a")
		out = s.openssl(k, []step{{"Verify return code", 1, getA}, {"hello", 1, "R\n"}, {"RENEGOTIATING", 1, getA},
			{"hello", 2, ""}}, "-tls1_2")
		assert.Contains(t, out, "RENEGOTIATING")
		assert.Equal(t, 1, strings.Count(out, "hello"), out)
		fetch(t, other, "https://"+s.Addr()+"/a")

		session := filepath.Join(k.dir, "session")
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			s.openssl(k, askOnce, version, "-sess_out", session)
			assert.Contains(t, s.openssl(k, askOnce, version, "-sess_in", session), "Reused, TLSv1.")
		}
		assert.True(t, s.shutdown(patience))
	})
}

// The staple of the file reaches the client, as long as it is for the certificate.
func TestStaple(t *testing.T) {
	requireInstalled(t, "openssl")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		cert := k.Issue(t, looptest.Leaf{Names: []string{"a.test"}})
		cert.Certificate = append(cert.Certificate, k.Cert.Raw)
		certFile, keyFile := looptest.WritePair(t, k.dir, "a", cert)
		staple := filepath.Join(k.dir, "a.ocsp")
		write := func(about *x509.Certificate, status int, until time.Time) {
			der, err := ocsp.CreateResponse(k.Cert, k.Cert, ocsp.Response{
				Status: status, SerialNumber: about.SerialNumber, RevokedAt: time.Now(),
				ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: until,
			}, k.Key)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(staple, der, 0o644))
		}
		write(cert.Leaf, ocsp.Good, time.Now().Add(time.Hour))
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", fmt.Sprintf("cert = %q\nkey = %q\nocsp_staple = %q",
			certFile, keyFile, staple)), nil)
		stapled := func() bool {
			return strings.Contains(s.openssl(k, askOnce, "-status"), "OCSP Response Status: successful")
		}
		assert.True(t, stapled())
		for _, row := range []struct {
			complaint string
			about     *x509.Certificate
			status    int
			until     time.Duration
		}{
			{"out of date since", cert.Leaf, ocsp.Good, -time.Minute},
			{"is not good", cert.Leaf, ocsp.Revoked, time.Hour},
			{"no response matching", k.Issue(t, looptest.Leaf{Subject: "x"}).Leaf, ocsp.Good, time.Hour},
		} {
			write(row.about, row.status, time.Now().Add(row.until))
			eventually(t, "the complaint", func() bool { return len(s.log.lines(row.complaint)) > 0 })
			assert.False(t, stapled(), row.complaint)
		}
		write(cert.Leaf, ocsp.Good, time.Now().Add(2*time.Hour))
		eventually(t, "the staple to be back", stapled)
	})
}

// An upstream of OpenSSL: it speaks HTTP/1.0 and ends its body by the end of the
// connection.
func TestOpensslServer(t *testing.T) {
	requireInstalled(t, "openssl")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		body := looptest.Pattern(3 << 20)
		require.NoError(t, os.WriteFile(filepath.Join(k.dir, "file"), body, 0o644))
		cert, key := looptest.WritePair(t, k.dir, "up", k.Issue(t, looptest.Leaf{Names: []string{"up.test"}}))
		ca := k.WriteCert(t, k.dir, "ca")
		address := fmt.Sprintf("127.0.0.1:%d", looptest.FreePort(t))
		server := exec.Command("openssl", "s_server", "-accept", address, "-cert", cert, "-key", key, "-WWW", "-quiet")
		server.Dir = k.dir
		require.NoError(t, looptest.Start(server))
		t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
		eventually(t, "openssl to listen", func() bool {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			return c.Close() == nil
		})
		s := launch(t, looptest.ProxyConfig(engine, []string{address}, "tls = true", `server_name = "up.test"`, fmt.Sprintf("ca = %q", ca)),
			nil)
		for range 3 {
			c := s.dial()
			c.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, text := c.receive()
			assert.Equal(t, 200, resp.StatusCode)
			assert.True(t, bytes.Equal(body, []byte(text)))
		}
		assert.True(t, s.shutdown(patience))
	})
}

// openssl as the client of a protocol in which the server speaks first.
func TestOpensslClientTCP(t *testing.T) {
	requireInstalled(t, "openssl")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, k.tcpTLS(engine, bytesUpstream(t, greetingEcho), "", `alpn = ["mqtt"]`), nil)
		talk := []step{{"220 hello", 1, "one\n"}, {"one\n", 1, "two\n"}, {"two\n", 1, ""}}
		out := s.openssl(k, talk, "-tls1_3", "-alpn", "h2,mqtt")
		assert.Contains(t, out, "Verify return code: 0 (ok)")
		assert.Contains(t, out, "ALPN protocol: mqtt")
		assert.Contains(t, out, "\none\ntwo\n")
		assert.Contains(t, s.openssl(k, talk, "-tls1_2"), "\none\ntwo\n")
		out = s.openssl(k, talk, "-tls1_3", "-alpn", "h2")
		assert.Contains(t, out, "no application protocol")

		// New keys in the middle, ours asked for as well.
		out = s.openssl(k, []step{{"220 hello", 1, "one\n"}, {"one\n", 1, "K\n"}, {"KEYUPDATE", 1, "k\n"}, {"KEYUPDATE", 2, "two\n"},
			{"two\n", 1, ""}}, "-tls1_3")
		assert.Contains(t, out, "two\n", out)

		// A client that wants to renegotiate loses its connection; nobody else does.
		c := k.dialTLS(s.Addr(), nil)
		c.expect("220 hello\r\n")
		out = s.openssl(k, []step{{"220 hello", 1, "R\n"}, {"RENEGOTIATING", 1, "lost\n"}}, "-tls1_2")
		assert.Contains(t, out, "RENEGOTIATING")
		assert.NotContains(t, out, "\nlost\n")
		eventually(t, "the log", func() bool { return len(s.log.lines("the client broke off")) == 1 })
		c.send("on")
		c.expect("on")
		require.NoError(t, c.Close())

		session := filepath.Join(k.dir, "session")
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			s.openssl(k, talk, version, "-sess_out", session)
			assert.Contains(t, s.openssl(k, talk, version, "-sess_in", session), "Reused, TLSv1.")
		}
		assert.True(t, s.shutdown(patience))
	})
}

// HAProxy as a client of TLS, and behind us as the one who is told of it.
func TestHAProxyAroundTLS(t *testing.T) {
	haproxy := requireInstalled(t, "haproxy")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		in, told := looptest.FreePort(t), looptest.FreePort(t)
		s := launch(t, accepting(k.tcpTLS(engine, fmt.Sprintf("127.0.0.1:%d", told), `send_proxy = "v2"`,
			`alpn = ["http/1.1"]`)), nil)
		file := filepath.Join(t.TempDir(), "haproxy.cfg")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend told
  mode http
  bind 127.0.0.1:%d accept-proxy
  http-request return status 200 content-type text/plain lf-string "%%[fc_pp_authority] %%[src] %%[req.hdr(host)]"
frontend in
  mode tcp
  bind 127.0.0.1:%d
  default_backend atlas
backend atlas
  mode tcp
  server atlas %s ssl ca-file %s sni str(a.test) verifyhost a.test alpn http/1.1 send-proxy
`, told, in, s.Addr(), k.WriteCert(t, k.dir, "ca")), 0o644))
		run(t, []int{told, in}, haproxy, "-db", "-f", file)
		c := dialFrom(t, "127.0.0.9", fmt.Sprintf("127.0.0.1:%d", in))
		assert.Equal(t, "a.test 127.0.0.9 a", c.get("/"))
		assert.Equal(t, "a.test 127.0.0.9 a", c.get("/"))
		require.NoError(t, c.Close())
	})
}
