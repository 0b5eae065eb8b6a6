package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pressure is a steady load: clients that ask for small and large files, on
// connections that they keep and on new ones, and take every request that is not
// answered for a failure, also one on a connection that was closed under it.
type pressure struct {
	address string
	tls     *tls.Config // nil: plain
	bodies  map[string][]byte

	requests, connections, failures, resets atomic.Int64
	// stale are failures of requests on a connection that the server closed while it
	// rested: a client that knows that it may ask again does.
	stale atomic.Int64

	mu    sync.Mutex
	first error // failure

	enough chan struct{}
	done   sync.WaitGroup
}

// files writes what pressure asks for.
func files(t testing.TB) (root string, bodies map[string][]byte) {
	t.Helper()
	root, bodies = t.TempDir(), make(map[string][]byte)
	for name, size := range map[string]int{"/small": 1 << 10, "/large": 1 << 20} {
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		bodies[name] = body
		require.NoError(t, os.WriteFile(filepath.Join(root, name), body, 0o644))
	}
	return root, bodies
}

// pressing is how many clients press.
const pressing = 6

// press starts the load. end ends it.
func press(address string, cfg *tls.Config, bodies map[string][]byte) *pressure {
	p := &pressure{address: address, tls: cfg, bodies: bodies, enough: make(chan struct{})}
	for path := range bodies {
		for _, keep := range []bool{true, true, false} {
			p.done.Go(func() { p.client(path, keep) })
		}
	}
	return p
}

func (p *pressure) end() {
	close(p.enough)
	p.done.Wait()
}

func (p *pressure) over() bool {
	select {
	case <-p.enough:
		return true
	default:
		return false
	}
}

// client asks until the end, each time with a moment to itself: else the load
// would be all that the machine does.
func (p *pressure) client(path string, keep bool) {
	for !p.over() {
		if err := p.connection(path, keep); err != nil {
			p.failures.Add(1)
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				p.resets.Add(1)
			}
			if errors.Is(err, errStale) {
				p.stale.Add(1)
			}
			p.mu.Lock()
			if p.first == nil {
				p.first = fmt.Errorf("%s: %w", path, err)
			}
			p.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// connection asks on one connection, until the server says that this was it.
func (p *pressure) connection(path string, keep bool) error {
	c, err := net.DialTimeout("tcp", p.address, patience)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	p.connections.Add(1)
	if err := c.SetDeadline(time.Now().Add(4 * patience)); err != nil {
		return err
	}
	if p.tls != nil {
		secure := tls.Client(c, p.tls)
		if err := secure.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		c = secure
	}
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		last, err := p.ask(c, in, path, keep)
		if n == 0 && errors.Is(err, errStale) {
			err = errSilent
		}
		if err != nil {
			return fmt.Errorf("request %d: %w", n+1, err)
		}
		p.requests.Add(1)
		time.Sleep(2 * time.Millisecond)
		if last || p.over() {
			return nil
		}
		if err := c.SetDeadline(time.Now().Add(4 * patience)); err != nil {
			return err
		}
	}
}

// errStale is a connection that was closed before the answer began; errSilent is one
// on which that was the first.
var (
	errStale  = errors.New("closed before the answer")
	errSilent = errors.New("closed without any answer")
)

func (p *pressure) ask(c net.Conn, in *bufio.Reader, path string, keep bool) (last bool, err error) {
	connection := "keep-alive"
	if !keep {
		connection = "close"
	}
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a.test\r\nConnection: %s\r\n\r\n", path, connection)
	if err != nil {
		return false, err
	}
	if _, err := in.Peek(1); err == io.EOF {
		return false, errStale
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return false, fmt.Errorf("body: %w", err)
	case resp.StatusCode != 200:
		return false, fmt.Errorf("%s: %.100q", resp.Status, body)
	case !bytes.Equal(body, p.bodies[path]):
		return false, fmt.Errorf("%d bytes that are not the file", len(body))
	}
	return resp.Close || !keep, nil
}
