package looptest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
)

// Layer is a protocol that connections of the worker speak below the handler, so
// that its loop.Conn can be held to the contract as well. The tests' own sockets
// stay plain: a bridge speaks the protocol for them.
type Layer struct {
	// Serve puts the protocol in front of a handler.
	Serve func(above loop.Handler) loop.Handler
	// Dialled starts the protocol on a connection that was dialled, in a task.
	Dialled func(raw loop.Conn) (loop.Conn, error)
	// Connect and Accept speak it for the test's end of either.
	Connect, Accept func(raw *net.TCPConn) Secure
}

// Secure is an end of a connection that speaks a protocol of its own.
type Secure interface {
	io.ReadWriter
	Handshake() error
	CloseWrite() error
}

// RunOver runs the suite through a layer, but for the tests that are named with
// the reason why they cannot hold there, and for those of splice, of listeners, of the
// gate before them and of workers that share them, which layers do not have.
func RunOver(t *testing.T, engine loop.Engine, layer Layer, without map[string]string) {
	for name := range without {
		_, is := tests()[name]
		assert.True(t, is, "there is no test %q", name)
	}
	for name, test := range tests() {
		below := spliceTests[name] != nil || listenTests[name] != nil || gateTests[name] != nil ||
			shareTests[name] != nil
		if below || without[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			e := New(t, loop.Config{Engine: engine, CPU: -1})
			e.layer = &layer
			test(e)
		})
	}
}

// bridge returns the plain end of a pair whose other end is passed on to and from
// what secure makes of c: bytes, ends in order, and resets for all else.
func (e *Env) bridge(c *net.TCPConn, secure func(*net.TCPConn) Secure) *net.TCPConn {
	test, plain := pair(e, net.Dialer{})
	if test == nil {
		return nil
	}
	e.join(c, secure, test, plain)
	return test
}

// join is the bridge between what secure makes of c, and plain, whose other end is
// the test's.
func (e *Env) join(c *net.TCPConn, secure func(*net.TCPConn) Secure, test, plain *net.TCPConn) {
	other := secure(c)
	var both sync.WaitGroup
	both.Go(func() {
		_ = other.Handshake() // an end before it could not be passed on; the copy sees an error
		if _, err := io.Copy(struct{ io.Writer }{other}, struct{ io.Reader }{plain}); err != nil {
			abort(c)
			abort(plain)
			return
		}
		_ = other.CloseWrite() // if that fails the other direction sees it
		_ = c.CloseWrite()
	})
	both.Go(func() {
		if _, err := io.Copy(struct{ io.Writer }{plain}, struct{ io.Reader }{other}); err != nil {
			abort(plain)
			abort(c)
			return
		}
		_ = plain.CloseWrite()
	})
	go func() {
		both.Wait()
		_ = plain.Close()
		_ = c.Close()
	}()
	e.Cleanup(func() {
		_ = test.Close()
		_ = plain.Close()
		_ = c.Close()
		both.Wait()
	})
}

// pair returns two ends of a connection, of which dialer makes the first.
func pair(e *Env, dialer net.Dialer) (one, other *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if !assert.NoError(e, err) {
		return nil, nil
	}
	defer ln.Close()
	dialled, err := dialer.Dial("tcp", ln.Addr().String())
	if !assert.NoError(e, err) {
		return nil, nil
	}
	accepted, err := ln.Accept()
	assert.NoError(e, err)
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

func abort(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails on a closed socket only
	_ = c.Close()
}

// connect is the test's end of a new connection, from any goroutine.
func (e *Env) connect(address string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	end := c.(*net.TCPConn)
	if e.layer != nil {
		end = e.bridge(end, e.layer.Connect)
	}
	return end, end.SetDeadline(time.Now().Add(patience))
}
