package tlsio

import (
	"crypto/tls"
	"errors"
	"time"

	"atlas/proxy/loop"
)

// Client is how one upstream is spoken to: any worker may use it. It remembers
// the sessions of one peer, so that the next handshake with it is short.
type Client struct{ config *tls.Config }

// NewClient makes a client. cfg is the caller's no more.
func NewClient(cfg *tls.Config) *Client { return &Client{config: cfg} }

// sessionsKept is how many sessions a client remembers of a peer: with TLS 1.3
// each is used once, and a server gives out two or so at a time.
const sessionsKept = 8

// Peer is a client that does the same and remembers its own sessions: those of
// one machine mean nothing to the next.
func (k *Client) Peer() *Client {
	cfg := k.config.Clone()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
	return &Client{config: cfg}
}

// Start shakes hands over a connection that was dialled, and owns it from now on.
// It waits. On an error the connection is closed.
func (k *Client) Start(raw loop.Conn, memory *Memory, timeout time.Duration) (loop.Conn, error) {
	until := raw.Loop().Now().After(timeout)
	raw.SetReadDeadline(until)
	raw.SetWriteDeadline(until)
	c := newConn(raw, memory)
	c.tls = tls.Client(&c.wire, k.config)
	err := c.handshake()
	if err == nil {
		err = raw.Flush()
	}
	if err != nil {
		raw.Close()
		return nil, &HandshakeError{err}
	}
	c.SetReadDeadline(0)
	c.SetWriteDeadline(0)
	return c, nil
}

// HandshakeError says why an upstream could not be spoken to.
type HandshakeError struct{ Err error }

func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }
func (e *HandshakeError) Unwrap() error { return e.Err }

// Untrusted reports that it was for the upstream's certificate.
func (e *HandshakeError) Untrusted() bool {
	return errors.As(e.Err, new(*tls.CertificateVerificationError))
}

// Config is what the client was made of, for others who speak to the same peer
// with Go's own means. It must not be changed.
func (k *Client) Config() *tls.Config { return k.config }
