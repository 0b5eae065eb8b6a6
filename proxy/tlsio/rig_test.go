package tlsio_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/tlsio"
)

const patience = 30 * time.Second

// name is what the certificate of a rig is for.
const name = "atlas.test"

// rig is a worker that serves TLS.
type rig struct {
	*looptest.Env
	authority *looptest.Authority
	config    *tls.Config // of the server
	current   atomic.Pointer[tls.Config]
	handshake time.Duration
	stats     stats.Stats
	memory    *tlsio.Memory
	address   string
}

// newRig starts a worker with nothing to serve yet.
func newRig(t testing.TB, engine loop.Engine) *rig {
	t.Helper()
	r := &rig{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), authority: looptest.NewAuthority(t),
		memory: tlsio.NewMemory(), handshake: patience}
	cert := r.authority.Issue(t, looptest.Leaf{Names: []string{name, "127.0.0.1"}})
	r.config = &tls.Config{
		GetCertificate: tlsio.NewCertificates([]*tls.Certificate{cert}).Choose,
		NextProtos:     []string{"http/1.1"},
	}
	return r
}

// serve has connections served by a function, with the rig's configuration.
func (r *rig) serve(serve func(loop.Conn) bool) {
	r.Helper()
	r.listen(looptest.Funcs{OnServe: serve})
}

func (r *rig) listen(h loop.Handler) {
	r.Helper()
	r.current.Store(r.config)
	r.address = r.Listen(tlsio.NewHandler(tlsio.Config{TLS: &r.current, Handshake: r.handshake, Stats: &r.stats}, h))
}

// engines runs a test on both engines.
func engines(t *testing.T, test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) { test(t, newRig(t, engine)) })
}

// trusting is the configuration of a client that trusts the rig's authority.
func (r *rig) trusting() *tls.Config {
	return &tls.Config{RootCAs: r.authority.Pool, ServerName: name}
}

// client connects and shakes hands.
func (r *rig) client(cfg *tls.Config) *tls.Conn {
	r.Helper()
	c := tls.Client(r.Dial(r.address), cfg)
	require.NoError(r, c.Handshake())
	return c
}

// forge connects a client that writes its own records.
func (r *rig) forge() *looptest.Forger {
	r.Helper()
	return looptest.Forge(r, r.Dial(r.address), r.trusting())
}

// dialled returns both ends of a connection: a TLS server's, and the loop's, which
// has dialled it. Use the second one in tasks only.
func (r *rig) dialled(server *tls.Config) (*tls.Conn, loop.Conn) {
	r.Helper()
	return r.dialledBy(r.peer(), server)
}

// peer is how the loop speaks to a server of the rig's authority.
func (r *rig) peer() *tlsio.Client { return tlsio.NewClient(r.trusting()).Peer() }

func (r *rig) dialledBy(client *tlsio.Client, server *tls.Config) (*tls.Conn, loop.Conn) {
	r.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r, err)
	defer ln.Close()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			close(accepted)
			return
		}
		_ = raw.SetDeadline(time.Now().Add(patience))
		c := tls.Server(raw, server)
		_ = c.Handshake() // the client sees if it fails
		accepted <- c
	}()
	var c loop.Conn
	r.Task(func() {
		var raw loop.Conn
		raw, err = r.Loop.Dial(loop.Address{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()}, patience)
		if assert.NoError(r, err) {
			c, err = client.Start(raw, r.memory, patience)
		}
	})
	require.NoError(r, err)
	peer := <-accepted
	r.Cleanup(func() { _ = peer.NetConn().Close() })
	return peer, c
}

// echo sends back what it gets.
func echo(c loop.Conn) bool {
	_, err := c.Write(c.Peek())
	c.Consume(len(c.Peek()))
	return err == nil && c.Flush() == nil
}

// says sends text and wants the same back.
func says(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}
