package tlsio_test

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/tlsio"
)

// TestContract holds a Conn to the contract of loop.Conn: the suite of package
// looptest runs through TLS, on both engines.
func TestContract(t *testing.T) {
	authority := looptest.NewAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{*authority.Issue(t, looptest.Leaf{Names: []string{name}})}}
	client := &tls.Config{RootCAs: authority.Pool, ServerName: name}
	var current atomic.Pointer[tls.Config]
	current.Store(server)
	layer := looptest.Layer{
		Serve: func(above loop.Handler) loop.Handler {
			return tlsio.NewHandler(tlsio.Config{TLS: &current, Handshake: patience, Stats: new(stats.Stats)}, above)
		},
		Dialled: func(raw loop.Conn) (loop.Conn, error) {
			return tlsio.NewClient(client).Peer().Start(raw, tlsio.NewMemory(), patience)
		},
		Connect: func(raw *net.TCPConn) looptest.Secure { return tls.Client(raw, client) },
		Accept:  func(raw *net.TCPConn) looptest.Secure { return tls.Server(raw, server) },
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		looptest.RunOver(t, engine, layer, map[string]string{
			"await: a queue for a few slots":                     "600 handshakes outlast its patience under the race detector",
			"addresses of both ends":                             "they are those of the bridge",
			"a last word: idle, and in a drain":                  "the layer below has it",
			"a last word: a drain gives a fresh connection time": "and decides what is fresh",
			"send a file that is not in memory":                  "it is, but by reads, which are not counted",
			"drain while a response leaves":                      "a large Queue waits: what is encrypted is a copy, and bounded",
			"await: closed on our side":                          "the same",
			"stop while the rest of a closed connection leaves":  "the same",
		})
	})
}
