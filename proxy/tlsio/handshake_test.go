package tlsio_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/tlsio"
)

// small is a client's configuration with a short greeting.
func (r *rig) small() *tls.Config {
	cfg := r.trusting()
	cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	return cfg
}

// cutConn loses the connection when it has sent so many bytes.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	_, _ = c.Conn.Write(p[:n])
	if n < len(p) {
		_ = c.Close()
		return n, net.ErrClosed
	}
	return n, nil
}

// A handshake may end at every byte: nobody else notices, and nothing is left.
func TestCutHandshakes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.serve(echo)
		other := r.client(r.trusting())
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := r.small()
			cfg.MaxVersion = version
			cut := 0
			for done := false; !done; cut++ {
				raw, err := net.Dial("tcp", r.address)
				require.NoError(t, err)
				c := &cutConn{Conn: raw, left: cut}
				done = tls.Client(c, cfg).Handshake() == nil && c.left >= 0 && cut > 200
				_ = c.Close()
				if cut%50 == 0 {
					says(t, other, "hello")
				}
			}
			assert.Greater(t, cut, 200)
		}
		r.Eventually("all to close", func() bool { return r.Loop.Counters().Open.Load() == 1 })
		assert.Greater(t, r.stats.HandshakeErrors[stats.HandshakeGone].Load(), int64(400))
		says(t, other, "hello")
	})
}

// The bytes of a handshake may come one by one.
func TestSlowHandshake(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.serve(echo)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := r.small()
			cfg.MaxVersion = version
			c := tls.Client(oneByOne{r.Dial(r.address)}, cfg)
			says(t, c, "hello")
			require.NoError(t, c.CloseWrite())
			_, err := io.ReadAll(c)
			assert.NoError(t, err)
		}
	})
}

type oneByOne struct{ net.Conn }

func (c oneByOne) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// A thousand clients that begin and say no more hold up nobody, and are gone when
// their time is over.
func TestHalfOpenHandshakes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		const clients = 1000
		r.handshake = 3 * time.Second
		r.serve(echo)
		hello := r.hello()
		for i := range clients {
			c := r.Dial(r.address)
			_, err := c.Write(hello[:1+i%len(hello)])
			require.NoError(t, err)
		}
		r.Eventually("all to be there", func() bool { return r.Loop.Counters().Accepted.Load() == clients })
		for range 20 {
			c := r.client(r.trusting())
			says(t, c, "hello")
			require.NoError(t, c.Close())
		}
		r.Eventually("all to close", func() bool { return r.Loop.Counters().Open.Load() == 0 })
		failed := r.stats.HandshakeErrors[stats.HandshakeTimeout].Load()
		assert.EqualValues(t, clients, failed)
		assert.EqualValues(t, 20, r.stats.Handshakes.Load())
	})
}

// hello is what a client says first.
func (r *rig) hello() []byte {
	var first []byte
	c := tls.Client(recording{&first}, r.trusting())
	_ = c.Handshake() // it gets no answer
	return first
}

// recording is a connection that keeps the first write.
type recording struct{ first *[]byte }

func (c recording) Write(p []byte) (int, error) {
	if *c.first == nil {
		*c.first = bytes.Clone(p)
	}
	return len(p), nil
}
func (recording) Read([]byte) (int, error)         { return 0, io.ErrUnexpectedEOF }
func (recording) Close() error                     { return nil }
func (recording) LocalAddr() net.Addr              { return nil }
func (recording) RemoteAddr() net.Addr             { return nil }
func (recording) SetDeadline(time.Time) error      { return nil }
func (recording) SetReadDeadline(time.Time) error  { return nil }
func (recording) SetWriteDeadline(time.Time) error { return nil }

// Every handshake that fails is counted by its reason; the words of crypto/tls
// that tell them apart are those of this Go version.
func TestReasons(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.handshake = 2 * time.Second // in which a busy machine comes to all that fails otherwise
		r.config.ClientCAs = r.authority.Pool
		r.config.ClientAuth = tls.RequireAndVerifyClientCert
		r.serve(echo)
		stranger := looptest.NewAuthority(t)
		mine := r.authority.Issue(t, looptest.Leaf{Subject: "me"})
		old := r.authority.Issue(t, looptest.Leaf{Subject: "me", NotAfter: time.Now().Add(-time.Minute)})
		good := r.trusting()
		good.Certificates = []tls.Certificate{*mine}
		with := func(change func(*tls.Config)) func(net.Conn) {
			cfg := good.Clone()
			change(cfg)
			return func(raw net.Conn) {
				c := tls.Client(raw, cfg)
				if c.Handshake() == nil {
					_, err := c.Read(make([]byte, 1)) // the alert of a server that speaks TLS 1.3
					assert.Error(t, err)
				}
			}
		}
		say := func(text string) func(net.Conn) {
			return func(raw net.Conn) {
				_, _ = io.WriteString(raw, text)
				_, _ = io.Copy(io.Discard, raw)
			}
		}
		hello := string(r.hello())
		for _, row := range []struct {
			name   string
			client func(net.Conn)
			want   stats.HandshakeError
		}{
			{"TLS 1.1", with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }),
				stats.HandshakeVersion},
			{"SSL 2", say("\x80\x2e\x01\x00\x02" + strings.Repeat("x", 60)), stats.HandshakeVersion},
			{"HTTP/2 only", with(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), stats.HandshakeProtocol},
			{"RSA only, and our key is another", with(func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
			}), stats.HandshakeCipher},
			{"no certificate", with(func(c *tls.Config) { c.Certificates = nil }), stats.HandshakeCertificate},
			{"no certificate, TLS 1.2", with(func(c *tls.Config) { c.Certificates, c.MaxVersion = nil, tls.VersionTLS12 }),
				stats.HandshakeCertificate},
			{"a certificate of others", with(func(c *tls.Config) {
				forged := *stranger.Issue(t, looptest.Leaf{Subject: "me"})
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forged, nil }
			}), stats.HandshakeCertificate},
			{"a certificate that has ended", with(func(c *tls.Config) { c.Certificates = []tls.Certificate{*old} }),
				stats.HandshakeCertificate},
			{"it does not trust us", with(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), stats.HandshakeRefused},
			{"it wants another name", with(func(c *tls.Config) { c.ServerName = "other.test" }), stats.HandshakeRefused},
			{"HTTP", say("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), stats.HandshakePlain},
			{"noise", say(strings.Repeat("\xff", 3000)), stats.HandshakePlain},
			{"a record that is too long", say("\x16\x03\x01\xff\xff" + strings.Repeat("x", 100)), stats.HandshakeMalformed},
			{"no greeting", say("\x16\x03\x01\x00\x05\x0e\x00\x00\x01x"), stats.HandshakeMalformed},
			{"a greeting that is none", say("\x16\x03\x01\x00\x05\x01\x00\x00\x01x"), stats.HandshakeMalformed},
			{"an alert", say("\x15\x03\x01\x00\x02\x02\x28"), stats.HandshakeRefused},
			{"bytes of another", say(hello + "\x17\x03\x03\x00\x05xxxxx"), stats.HandshakeMalformed},
			{"nothing more", func(raw net.Conn) { _, _ = io.WriteString(raw, hello[:100]); _, _ = io.ReadAll(raw) },
				stats.HandshakeTimeout},
			{"it leaves", func(raw net.Conn) { _, _ = io.WriteString(raw, hello[:100]) }, stats.HandshakeGone},
			{"it resets", func(raw net.Conn) {
				_, _ = io.WriteString(raw, hello)
				_, _ = io.ReadFull(raw, make([]byte, 10))
				_ = raw.(*net.TCPConn).SetLinger(0)
			}, stats.HandshakeGone},
		} {
			t.Run(row.name, func(t *testing.T) {
				before := r.stats.HandshakeErrors[row.want].Load()
				raw := r.Dial(r.address)
				row.client(raw)
				require.NoError(t, raw.Close())
				r.Eventually("it to be counted as "+row.want.String(), func() bool {
					return r.stats.HandshakeErrors[row.want].Load() == before+1
				})
			})
		}
		r.Eventually("all to close", func() bool { return r.Loop.Counters().Open.Load() == 0 })
		var all int64
		for i := range r.stats.HandshakeErrors {
			all += r.stats.HandshakeErrors[i].Load()
		}
		assert.Equal(t, all, r.stats.ClientErrors[stats.HandshakeFailed].Load())
		says(t, r.client(good), "hello")
	})
}

// A client that fails is told why, also while it is still sending.
func TestAlertArrives(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.config.ClientCAs = r.authority.Pool
		r.config.ClientAuth = tls.RequireAndVerifyClientCert
		r.serve(echo)
		for range 20 {
			c := r.client(r.trusting()) // with TLS 1.3 it is done before we see its certificate
			_, _ = c.Write(make([]byte, 30_000))
			_, err := c.Read(make([]byte, 1))
			assert.ErrorContains(t, err, "certificate required")
			require.NoError(t, c.NetConn().Close())
		}
	})
}

// What a client breaks after the handshake ends its connection with an alert, and
// no other one.
func TestMalformedRecords(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ended := make(chan error, 1)
		r.serve(func(c loop.Conn) bool {
			if string(c.Peek()) != "wait" {
				return echo(c)
			}
			c.Consume(4)
			ended <- c.Fill()
			return false
		})
		other := r.client(r.trusting())
		for name, forge := range map[string]func(f *looptest.Forger) []byte{
			"a wrong byte": func(f *looptest.Forger) []byte {
				record := f.Record(looptest.RecordApplication, 'x')
				record[8] ^= 1
				return record
			},
			"a record twice": func(f *looptest.Forger) []byte {
				record := f.Record(looptest.RecordApplication)
				return append(record, record...)
			},
			"in plain":          func(*looptest.Forger) []byte { return []byte("\x17\x03\x03\x00\x05hello") },
			"too short":         func(*looptest.Forger) []byte { return []byte("\x17\x03\x03\x00\x01x") },
			"too long":          func(*looptest.Forger) []byte { return []byte("\x17\x03\x03\xff\xffxxxx") },
			"another version":   func(*looptest.Forger) []byte { return []byte("\x17\x03\x01\x00\x13" + strings.Repeat("x", 19)) },
			"no such type":      func(f *looptest.Forger) []byte { return f.Record(99, 'x') },
			"only padding":      func(f *looptest.Forger) []byte { return f.Record(0) },
			"a greeting":        func(f *looptest.Forger) []byte { return f.Record(looptest.RecordHandshake, 1, 0, 0, 1, 0) },
			"a certificate":     func(f *looptest.Forger) []byte { return f.Record(looptest.RecordHandshake, 11, 0, 0, 1, 0) },
			"new keys, wrongly": func(f *looptest.Forger) []byte { return f.Record(looptest.RecordHandshake, 24, 0, 0, 1, 7) },
			"new keys in the middle of a message": func(f *looptest.Forger) []byte {
				return f.Record(looptest.RecordHandshake, 24, 0, 0, 1, 1, 24, 0)
			},
			"nothing, many times": func(f *looptest.Forger) (all []byte) {
				for range 20 {
					all = append(all, f.Record(looptest.RecordApplication)...)
				}
				return all
			},
			"new keys, many times": func(f *looptest.Forger) (all []byte) {
				for range 20 {
					all = append(all, f.KeyUpdate()...)
				}
				return all
			},
			"an alert":       func(f *looptest.Forger) []byte { return f.Record(looptest.RecordAlert, 2, 80) },
			"half an alert":  func(f *looptest.Forger) []byte { return f.Record(looptest.RecordAlert, 2) },
			"plain requests": func(*looptest.Forger) []byte { return []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n") },
		} {
			for _, waiting := range []bool{false, true} {
				f := r.forge()
				if waiting {
					f.Say(f.Record(looptest.RecordApplication, []byte("wait")...))
				}
				f.Say(forge(f))
				if waiting {
					err := <-ended
					assert.Error(t, err, name)
					assert.NotEqual(t, io.EOF, err, "%s is no end in order", name)
				}
				_, err := io.Copy(io.Discard, struct{ io.Reader }{f})
				assert.NoError(t, err, "%s: an alert, then the end", name)
				require.NoError(t, f.Close())
			}
			says(t, other, "hello")
		}
		r.Eventually("all to close", func() bool { return r.Loop.Counters().Open.Load() == 1 })
	})
}

// An RSA key is used by a helper, many at once.
func TestSlowKey(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		slow := r.authority.Issue(t, looptest.Leaf{Names: []string{name}, RSA: true})
		r.config.GetCertificate = tlsio.NewCertificates([]*tls.Certificate{slow}).Choose
		r.serve(echo)
		var clients sync.WaitGroup
		for i := range 20 {
			clients.Go(func() {
				raw, err := net.Dial("tcp", r.address)
				if !assert.NoError(t, err) {
					return
				}
				defer raw.Close()
				cfg := r.trusting()
				cfg.MaxVersion = tls.VersionTLS12 + uint16(i%2)
				c := tls.Client(raw, cfg)
				if assert.NoError(t, c.Handshake()) {
					_, ok := c.ConnectionState().PeerCertificates[0].PublicKey.(interface{ Size() int })
					assert.True(t, ok)
				}
			})
		}
		clients.Wait()
		r.Eventually("all to be counted", func() bool { return r.stats.Handshakes.Load() == 20 })
	})
}

// Clients that take either kind of certificate get the first, others theirs.
func TestKindsOfKeys(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		leaf := looptest.Leaf{Names: []string{name}}
		fast := r.authority.Issue(t, leaf)
		leaf.RSA = true
		r.config.GetCertificate = tlsio.NewCertificates([]*tls.Certificate{fast, r.authority.Issue(t, leaf)}).Choose
		r.serve(echo)
		for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   x509.RSA,
			0: x509.ECDSA,
		} {
			cfg := r.trusting()
			if suite != 0 {
				cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{suite}
			}
			c := r.client(cfg)
			assert.Equal(t, want, c.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm)
		}
	})
}

func TestClientCertificates(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.config.ClientCAs = r.authority.Pool
		r.config.ClientAuth = tls.VerifyClientCertIfGiven
		r.config.SetSessionTicketKeys([][32]byte{{1}})
		r.serve(func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			cert := c.(interface{ ClientCert() []byte }).ClientCert()
			_, err := c.Write(append(cert[:len(cert):len(cert)], '\n'))
			return err == nil && c.Flush() == nil
		})
		ask := func(cfg *tls.Config) (string, bool) {
			c := r.client(cfg)
			_, err := io.WriteString(c, "x")
			require.NoError(t, err)
			var got []byte
			for p := make([]byte, 1); !bytes.HasSuffix(got, []byte("\n")); got = append(got, p...) {
				_, err := io.ReadFull(c, p)
				require.NoError(t, err)
			}
			return string(got), c.ConnectionState().DidResume
		}
		text, _ := ask(r.trusting())
		assert.Equal(t, "\n", text)
		cfg := r.trusting()
		cfg.Certificates = []tls.Certificate{*r.authority.Issue(t, looptest.Leaf{Subject: "me"})}
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		first, resumed := ask(cfg)
		assert.False(t, resumed)
		assert.Regexp(t, "^:[A-Za-z0-9+/]+=*:\n$", first)
		second, resumed := ask(cfg)
		assert.True(t, resumed)
		assert.Equal(t, first, second, "a session that goes on is of the same client")
	})
}
