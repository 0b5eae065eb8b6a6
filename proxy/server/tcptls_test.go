package server

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// bytesUpstream is an upstream of a protocol that is not HTTP: it does what a test
// says with each connection, which is closed then.
func bytesUpstream(t testing.TB, serve func(c *net.TCPConn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * patience)) // the clients have theirs
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// greetingEcho speaks first, as servers of mail and of databases do, and says then
// what it hears, until the end.
func greetingEcho(c *net.TCPConn) {
	_, _ = io.WriteString(c, "220 hello\r\n")
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = c.CloseWrite()
}

// tcpTLS is a configuration of one worker, with TLS in front of bytes.
func (k *keys) tcpTLS(engine loop.Engine, upstream, options, listen string, more ...string) string {
	text := tcpConfig(engine, []string{upstream}, options, append([]string{"[listen.tls]", k.pair("a", "a.test"), listen}, more...)...)
	return strings.Replace(text, "workers = 2", "workers = 1", 1)
}

// secureClient is a client that speaks bytes over TLS.
type secureClient struct {
	*tls.Conn
	t   testing.TB
	raw *net.TCPConn
	in  *bufio.Reader
}

// dialTLS shakes hands with a server. cfg may be nil.
func (k *keys) dialTLS(address string, cfg *tls.Config) *secureClient {
	k.t.Helper()
	c := k.overTLS(dial(k.t, address), cfg)
	require.NoError(k.t, c.Handshake())
	return c
}

func (k *keys) overTLS(raw *client, cfg *tls.Config) *secureClient {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg.RootCAs, cfg.ServerName = k.Pool, "a.test"
	c := tls.Client(raw.TCPConn, cfg)
	return &secureClient{c, k.t, raw.TCPConn, bufio.NewReader(c)}
}

func (c *secureClient) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
}

func (c *secureClient) expect(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.in, got)
	require.NoError(c.t, err, "after %q", got[:n])
	require.Equal(c.t, text, string(got))
}

// In protocols where the server speaks first, it does so when the handshake is over:
// with every version, key exchange, and a session that goes on.
func TestTCPTLSServerFirst(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, k.tcpTLS(engine, bytesUpstream(t, greetingEcho), "", ""), nil)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := &tls.Config{MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			for i := range 3 {
				c := k.dialTLS(s.Addr(), cfg)
				c.expect("220 hello\r\n")
				c.send("hi")
				c.expect("hi")
				state := c.ConnectionState()
				assert.Equal(t, i > 0, state.DidResume)
				assert.Empty(t, state.NegotiatedProtocol)
				if version == tls.VersionTLS13 {
					assert.Equal(t, tls.X25519MLKEM768, state.CurveID)
				}
				require.NoError(t, c.CloseWrite())
				rest, err := io.ReadAll(c.in)
				assert.NoError(t, err, "close_notify")
				assert.Empty(t, rest)
				require.NoError(t, c.Close())
			}
		}
		// A client that says something at once, and one that says that it will say nothing.
		c := k.overTLS(s.dial(), nil)
		c.send("hi")
		c.expect("220 hello\r\nhi")
		require.NoError(t, c.Close())
		c = k.dialTLS(s.Addr(), nil)
		require.NoError(t, c.CloseWrite())
		rest, err := io.ReadAll(c.in)
		assert.NoError(t, err)
		assert.Equal(t, "220 hello\r\n", string(rest))
		require.NoError(t, c.Close())
		assert.EqualValues(t, 8, s.count("tls_handshakes_total", ""))
		assert.EqualValues(t, 4, s.count("tls_resumed_total", ""))
		eventually(t, "all to end", func() bool { return s.Counters()[0].Open.Load() == 0 })
		assert.Empty(t, s.log.lines("connection failed"))
		assert.True(t, s.shutdown(patience))
	})
}

// The end of one direction is passed on, and the other one goes on for as long as it
// likes.
func TestTCPTLSHalfClose(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		body := looptest.Pattern(3 << 20)
		heard := make(chan []byte, 2)
		up := bytesUpstream(t, func(c *net.TCPConn) {
			first := make([]byte, 1)
			_, _ = io.ReadFull(c, first)
			if first[0] == 'c' { // the client says its last first
				all, err := io.ReadAll(c)
				assert.NoError(t, err)
				heard <- all
				_, _ = c.Write(body)
				return
			}
			_, _ = c.Write(body)
			_ = c.CloseWrite()
			all, err := io.ReadAll(c)
			assert.NoError(t, err)
			heard <- all
		})
		s := launch(t, k.tcpTLS(engine, up, "", ""), nil)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, first := range []string{"c", "u"} {
				c := k.dialTLS(s.Addr(), &tls.Config{MaxVersion: version})
				c.send(first)
				say := func() {
					_, err := c.Write(body)
					assert.NoError(t, err)
					assert.NoError(t, c.CloseWrite())
				}
				if first == "c" {
					say()
					assert.Equal(t, body, <-heard)
				}
				got, err := io.ReadAll(c.in)
				assert.NoError(t, err, "close_notify")
				assert.Equal(t, body, got)
				if first == "u" {
					say()
					assert.Equal(t, body, <-heard)
				}
				require.NoError(t, c.Close())
			}
		}
		eventually(t, "all to end", func() bool { return s.Counters()[0].Open.Load() == 0 })
		assert.Empty(t, s.log.lines("connection failed"))
	})
}

// ended is how a connection's bytes end, which are read to their end.
func ended(c io.Reader) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	return err
}

// A stream that breaks off is not taken for one that has ended, on either side.
func TestTCPTLSTruncated(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		ends := make(chan error, 1)
		up := bytesUpstream(t, func(c *net.TCPConn) { ends <- ended(c) })
		s := launch(t, k.tcpTLS(engine, up, "", ""), nil)
		for name, cut := range map[string]func(f *looptest.Forger){
			"between records": func(f *looptest.Forger) { assert.NoError(t, f.CloseWrite()) },
			"within a record": func(f *looptest.Forger) {
				f.Say(f.Record(looptest.RecordApplication, []byte("lost")...)[:10])
				assert.NoError(t, f.CloseWrite())
			},
			"by a reset":        func(f *looptest.Forger) { _ = f.SetLinger(0); assert.NoError(t, f.Close()) },
			"by an alert":       func(f *looptest.Forger) { f.Say(f.Record(looptest.RecordAlert, 2, 80)) },
			"by a wrong record": func(f *looptest.Forger) { f.Say([]byte("\x17\x03\x03\x00\x13nineteen wrong byte")) },
		} {
			t.Run(name, func(t *testing.T) {
				f := looptest.Forge(t, s.dial().TCPConn, &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
				f.Say(f.Record(looptest.RecordApplication, []byte("some")...))
				cut(f)
				assert.ErrorIs(t, <-ends, syscall.ECONNRESET)
				if !strings.Contains(name, "reset") {
					assert.ErrorIs(t, ended(f), syscall.ECONNRESET, "the client learns it as well")
				}
				eventually(t, "the log", func() bool { return len(s.log.lines("the client broke off")) > 0 })
			})
		}
		eventually(t, "all to be counted", func() bool { return s.count("client_errors_total", "client_reset") == 5 })
	})
}

// A client that has said close_notify, with or without an end of TCP behind it, has
// ended in order.
func TestTCPTLSEnds(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		ends := make(chan error, 1)
		up := bytesUpstream(t, func(c *net.TCPConn) { ends <- ended(c) })
		s := launch(t, k.tcpTLS(engine, up, "", ""), nil)
		for _, behind := range []bool{false, true} {
			f := looptest.Forge(t, s.dial().TCPConn, &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
			f.Say(f.Record(looptest.RecordAlert, 1, 0))
			if behind {
				require.NoError(t, f.CloseWrite())
			}
			assert.NoError(t, <-ends)
			assert.NoError(t, ended(f))
		}
		assert.Empty(t, s.log.lines("connection failed"))
	})
}

// What breaks off at the upstream ends in a reset, and in no close_notify, also where
// the upstream speaks TLS and only ends its TCP.
func TestTCPTLSUpstreamBreaksOff(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		reset := bytesUpstream(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 2))
			_, _ = io.WriteString(c, "some")
			_, _ = io.ReadFull(c, make([]byte, 2)) // it has left us
			_ = c.SetLinger(0)
		})
		certificate := k.Issue(t, looptest.Leaf{Names: []string{"up.test"}})
		server := &tls.Config{Certificates: []tls.Certificate{*certificate}}
		truncated := bytesUpstream(t, func(c *net.TCPConn) {
			over := tls.Server(c, server)
			_, _ = io.ReadFull(over, make([]byte, 2))
			_, _ = io.WriteString(over, "some")
			_, _ = io.ReadFull(over, make([]byte, 2))
			_ = c.CloseWrite()
			_ = ended(c)
		})
		ca := fmt.Sprintf("tls = true\nserver_name = \"up.test\"\nca = %q", k.WriteCert(t, k.dir, "ca"))
		for name, text := range map[string]string{
			"a reset":             k.tcpTLS(engine, reset, "", ""),
			"a truncated stream":  k.tcpTLS(engine, truncated, ca, ""),
			"no upstream accepts": k.tcpTLS(engine, "127.0.0.1:1", "", ""),
		} {
			t.Run(name, func(t *testing.T) {
				s := launch(t, text, nil)
				c := k.dialTLS(s.Addr(), nil)
				if name != "no upstream accepts" {
					c.send("hi")
					c.expect("some")
					c.send("go")
				}
				assert.ErrorIs(t, ended(c.raw), syscall.ECONNRESET)
			})
		}
		// And in order it is in order.
		s := launch(t, k.tcpTLS(engine, k.echoTLS("up.test"), ca, ""), nil)
		c := k.dialTLS(s.Addr(), nil)
		c.send("hello")
		require.NoError(t, c.CloseWrite())
		c.expect("hello")
		assert.NoError(t, ended(c.in))
		assert.Empty(t, s.log.lines("connection failed"))
	})
}

// echoTLS is an upstream that echoes over TLS, and says close_notify.
func (k *keys) echoTLS(name string) (address string) {
	cert := k.Issue(k.t, looptest.Leaf{Names: []string{name}})
	server := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"echo"}}
	return bytesUpstream(k.t, func(c *net.TCPConn) {
		over := tls.Server(c, server)
		_, _ = io.Copy(over, over)
		_ = over.CloseWrite()
	})
}

// introduced is an upstream that reads a PROXY header and says what it is told.
func introduced(t testing.TB, heads chan<- *proxyproto.Header) (address string) {
	return bytesUpstream(t, func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		head, err := proxyproto.Read(in)
		if assert.NoError(t, err) {
			heads <- head
		}
		_, _ = io.Copy(c, in)
	})
}

// What the handshake has settled goes to the upstream, with the client's addresses,
// also where a proxy in front of us has said those.
func TestTCPTLSIntroduction(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		heads := make(chan *proxyproto.Header, 1)
		listen := fmt.Sprintf("alpn = [\"mqtt\", \"h2\"]\nclient_ca = %q\nclient_auth = \"optional\"", k.WriteCert(t, k.dir, "ca"))
		text := k.tcpTLS(engine, introduced(t, heads), `send_proxy = "v2"`, listen)
		s := launch(t, text, nil)
		me := k.Issue(t, looptest.Leaf{Subject: "me"})
		sessions := tls.NewLRUClientSessionCache(8)
		for _, row := range []struct {
			name    string
			cfg     *tls.Config
			alpn    string
			version string
			client  uint8
		}{
			{"nothing", &tls.Config{}, "", "TLSv1.3", 1},
			{"a protocol", &tls.Config{NextProtos: []string{"h2", "mqtt"}}, "mqtt", "TLSv1.3", 1},
			{"a certificate", &tls.Config{Certificates: []tls.Certificate{*me}, ClientSessionCache: sessions}, "", "TLSv1.3", 7},
			{"its session", &tls.Config{Certificates: []tls.Certificate{*me}, ClientSessionCache: sessions}, "", "TLSv1.3", 5},
			{"TLS 1.2", &tls.Config{Certificates: []tls.Certificate{*me}, MaxVersion: tls.VersionTLS12}, "", "TLSv1.2", 7},
		} {
			t.Run(row.name, func(t *testing.T) {
				c := k.dialTLS(s.Addr(), row.cfg)
				c.send("hi")
				c.expect("hi")
				head := <-heads
				assert.Equal(t, c.LocalAddr().String(), head.SourceAddr.String())
				assert.Equal(t, s.Addr(), head.DestinationAddr.String())
				fields, err := head.TLVs()
				require.NoError(t, err)
				values := make(map[proxyproto.PP2Type]string)
				for _, f := range fields {
					values[f.Type] = string(f.Value)
				}
				assert.Equal(t, row.alpn, values[proxyproto.PP2_TYPE_ALPN])
				assert.Equal(t, "a.test", values[proxyproto.PP2_TYPE_AUTHORITY])
				said, found := tlvparse.FindSSL(fields)
				require.True(t, found)
				assert.Equal(t, row.client, said.Client)
				assert.Equal(t, row.client > 1, said.Verified())
				version, _ := said.SSLVersion()
				assert.Equal(t, row.version, version)
				cipher, _ := said.SSLCipher()
				assert.Contains(t, cipher, "AES")
				name, _ := said.ClientCN()
				assert.Equal(t, map[bool]string{true: "me"}[row.client > 1], name)
				require.NoError(t, c.Close())
			})
		}
		s = launch(t, accepting(text), nil)
		raw := s.dial()
		raw.send("PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n")
		c := k.overTLS(raw, nil)
		c.send("hi")
		c.expect("hi")
		head := <-heads
		assert.Equal(t, "192.0.2.7:40000", head.SourceAddr.String())
		assert.Equal(t, "198.51.100.1:443", head.DestinationAddr.String())
		require.NoError(t, c.Close())
	})
}

// A client that offers only other protocols is told so, and no upstream hears of it;
// nor of one without a certificate, where that is asked for.
func TestTCPTLSRefused(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		up := bytesUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "hello")
			_ = ended(c)
		})
		s := launch(t, k.tcpTLS(engine, up, "", fmt.Sprintf("alpn = [\"mqtt\"]\nclient_ca = %q", k.WriteCert(t, k.dir, "ca"))), nil)
		me := k.Issue(t, looptest.Leaf{Subject: "me"})
		stranger := looptest.NewAuthority(t).Issue(t, looptest.Leaf{Subject: "me"})
		mine, strange := []tls.Certificate{*me}, []tls.Certificate{*stranger}
		for name, row := range map[string]struct {
			cfg  *tls.Config
			want string
		}{
			"another protocol":  {&tls.Config{Certificates: mine, NextProtos: []string{"http/1.1"}}, "application protocol"},
			"no certificate":    {&tls.Config{}, "certificate required"},
			"one of another's":  {&tls.Config{Certificates: strange}, "unknown certificate authority"},
			"the same, TLS 1.2": {&tls.Config{Certificates: strange, MaxVersion: tls.VersionTLS12}, "bad certificate|unknown"},
		} {
			t.Run(name, func(t *testing.T) {
				if row.cfg.Certificates != nil {
					cert := row.cfg.Certificates[0]
					row.cfg.Certificates = nil
					row.cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
				}
				c := k.overTLS(s.dial(), row.cfg)
				_, err := io.ReadAll(c)
				require.Error(t, err)
				assert.Regexp(t, row.want, err.Error())
			})
		}
		assert.Zero(t, s.Counters()[0].Dialled.Load())
		c := k.dialTLS(s.Addr(), &tls.Config{Certificates: []tls.Certificate{*me}, NextProtos: []string{"mqtt"}})
		c.expect("hello")
		assert.Equal(t, "mqtt", c.ConnectionState().NegotiatedProtocol)
		require.NoError(t, c.Close())
		assert.NotZero(t, s.count("tls_handshake_errors_total", "application_protocol"))
		assert.NotZero(t, s.count("tls_handshake_errors_total", "client_certificate"))
	})
}

// Handshakes and silent tunnels have their time-outs.
func TestTCPTLSTimeouts(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		ends := make(chan error, 1)
		up := bytesUpstream(t, func(c *net.TCPConn) { ends <- ended(c) })
		s := launch(t, k.tcpTLS(engine, up, "", "", "[timeouts]", `handshake = "300ms"`), nil)
		assert.NoError(t, ended(s.dial()))                         // it is silent
		eventually(t, "one to be cut in the middle", func() bool { // a busy machine may begin too late
			half := s.dial()
			_, _ = io.WriteString(half, "\x16\x03\x01")
			_ = ended(half) // in one way or another
			return s.count("tls_handshake_errors_total", "timeout") > 0
		})

		// Longer, as a busy machine is to shake hands in it.
		s = launch(t, k.tcpTLS(engine, up, "", "", "[timeouts]", `handshake = "2s"`, `tunnel = "3s"`), nil)
		c := k.dialTLS(s.Addr(), nil)
		began := time.Now()
		c.send("hello")
		assert.ErrorIs(t, ended(c.raw), syscall.ECONNRESET)
		assert.ErrorIs(t, <-ends, syscall.ECONNRESET)
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Second, "the handshake's time-out is over with the handshake")
		eventually(t, "the log", func() bool { return len(s.log.lines("nothing has moved for too long")) == 1 })
	})
}
