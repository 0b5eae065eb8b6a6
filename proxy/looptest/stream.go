package looptest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// streamTests are about receiving.
var streamTests = map[string]func(*Env){
	"bytes in pieces are all seen, in order":               piecesInOrder,
	"what is not consumed stays across waits elsewhere":    keepsUnconsumed,
	"fill grows what is there":                             fillGrows,
	"read takes no more than asked":                        readTakesLess,
	"end in order":                                         endInOrder,
	"end with bytes before it":                             endAfterBytes,
	"reset by the peer":                                    resetByPeer,
	"half close: the other direction goes on":              halfClose,
	"read deadline":                                        readDeadline,
	"read deadline of a single receive, then it goes on":   readDeadlineOnce,
	"a later deadline replaces an earlier one":             laterDeadline,
	"a large body from a fast sender":                      largeBody,
	"pipelining: a flood while the task is busy":           floodWhileBusy,
	"more connections than receive buffers":                bufferExhaustion,
	"switching between heads and bodies on one connection": headsAndBodies,
}

// echoLines answers each line with itself, before it waits for the rest of the next.
func echoLines(c loop.Conn) bool {
	for {
		line, err := readLine(c)
		if err != nil {
			return false
		}
		if _, err := c.Write(line); err != nil {
			return false
		}
		c.Consume(len(line))
		if bytes.IndexByte(c.Peek(), '\n') >= 0 {
			continue
		}
		if err := c.Flush(); err != nil || len(c.Peek()) == 0 {
			return err == nil
		}
	}
}

// readLine waits for a line, which it leaves in Peek.
func readLine(c loop.Conn) ([]byte, error) {
	for {
		if i := bytes.IndexByte(c.Peek(), '\n'); i >= 0 {
			return c.Peek()[:i+1], nil
		}
		if err := c.Fill(); err != nil {
			return nil, err
		}
	}
}

func piecesInOrder(e *Env) {
	address := e.Serve(echoLines)
	c := e.Dial(address)
	for _, piece := range []string{"h", "ell", "o\nwor", "ld\n\n", "x"} {
		e.write(c, piece)
		time.Sleep(2 * time.Millisecond) // so that they arrive apart
	}
	e.read(c, "hello\nworld\n\n")
	e.write(c, strings.Repeat("y", 9000)+"\n")
	e.read(c, "x"+strings.Repeat("y", 9000)+"\n")
}

func keepsUnconsumed(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		line, err := readLine(c)
		assert.NoError(e, err)
		want := string(line)
		for range 3 {
			c.Loop().Sleep(time.Millisecond)
			assert.True(e, strings.HasPrefix(string(c.Peek()), want), "%q", c.Peek())
		}
		return echoLines(c)
	})
	c := e.Dial(address)
	e.write(c, "first\nsecond\n")
	e.read(c, "first\nsecond\n")
}

func fillGrows(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		had := len(c.Peek())
		for len(c.Peek()) < 5 {
			if !assert.NoError(e, c.Fill()) || !assert.Greater(e, len(c.Peek()), had) {
				return false
			}
			had = len(c.Peek())
		}
		_, err := c.Write(c.Peek())
		c.Consume(5)
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	for _, b := range "abcde" {
		e.write(c, string(b))
		time.Sleep(time.Millisecond)
	}
	e.read(c, "abcde")
}

func readTakesLess(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		var p [3]byte
		for range 2 {
			for n := 0; n < len(p); {
				m, err := c.Read(p[n:])
				if !assert.NoError(e, err) {
					return false
				}
				n += m
			}
			_, err := c.Write(append(p[:], '|'))
			assert.NoError(e, err)
		}
		_, err := c.Write(c.Peek())
		c.Consume(len(c.Peek()))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, "abcdefg")
	e.read(c, "abc|def|g")
}

func endInOrder(e *Env) {
	seen := make(chan error, 1)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		seen <- c.Fill()
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	require.NoError(e, c.Close())
	assert.Equal(e, io.EOF, <-seen)
}

func endAfterBytes(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		for c.Fill() == nil {
		}
		assert.Equal(e, io.EOF, c.Fill())
		_, err := c.Write(c.Peek())
		c.Consume(len(c.Peek()))
		n, readErr := c.Read(make([]byte, 1))
		assert.Zero(e, n)
		assert.Equal(e, io.EOF, readErr)
		return err == nil
	})
	c := e.Dial(address)
	e.write(c, "all of it")
	require.NoError(e, c.CloseWrite())
	e.read(c, "all of it")
	e.readEnd(c)
}

func resetByPeer(e *Env) {
	seen := make(chan error, 1)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		seen <- c.Fill()
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	time.Sleep(5 * time.Millisecond)
	require.NoError(e, c.SetLinger(0))
	require.NoError(e, c.Close())
	assert.Equal(e, syscall.ECONNRESET, <-seen)
}

func halfClose(e *Env) {
	peer, c := e.peers()
	go echo(peer)
	e.Task(func() {
		_, err := c.Write([]byte("question"))
		assert.NoError(e, err)
		assert.NoError(e, c.CloseWrite())
		var got []byte
		p := make([]byte, 4)
		for {
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				assert.Equal(e, io.EOF, err)
				break
			}
		}
		assert.Equal(e, "question", string(got))
		c.Close()
	})
}

func readDeadline(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.SetReadDeadline(c.Loop().Now().After(20 * time.Millisecond))
		assert.Equal(e, loop.ErrDeadline, c.Fill())
		assert.Equal(e, loop.ErrDeadline, c.Fill(), "it stays past")
		assert.Equal(e, "x", string(c.Peek()))
		c.SetReadDeadline(0)
		_, err := c.Write([]byte("late"))
		assert.NoError(e, err)
		assert.NoError(e, c.Flush())
		assert.NoError(e, c.Fill())
		_, err = c.Write(c.Peek())
		assert.NoError(e, err)
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	e.read(c, "late")
	e.write(c, "y")
	e.read(c, "xy")
	e.readEnd(c)
}

// A single receive that is cut must give its memory back before Read returns:
// the bytes that come later belong to the next Read.
func readDeadlineOnce(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		p := make([]byte, 64<<10)
		c.SetReadDeadline(c.Loop().Now().After(20 * time.Millisecond))
		n, err := c.Read(p)
		for n == 0 && err == nil {
			n, err = c.Read(p)
		}
		assert.Zero(e, n)
		assert.Equal(e, loop.ErrDeadline, err)
		_, err = c.Write([]byte("late"))
		assert.NoError(e, err)
		assert.NoError(e, c.Flush())
		q := make([]byte, 64<<10)
		c.SetReadDeadline(0)
		for n, err = c.Read(q); n == 0 && err == nil; {
			n, err = c.Read(q)
		}
		assert.NoError(e, err)
		assert.Equal(e, "second", string(q[:n]))
		assert.Equal(e, make([]byte, len(p)), p, "the first Read's memory was written to later")
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	e.read(c, "late")
	e.write(c, "second")
	e.readEnd(c)
}

func laterDeadline(e *Env) {
	waits := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.SetReadDeadline(c.Loop().Now().After(10 * time.Millisecond))
		c.SetReadDeadline(c.Loop().Now().After(patience))
		close(waits) // the second byte is not to come with the first one
		err := c.Fill()
		assert.NoError(e, err)
		_, err = c.Write(c.Peek())
		return err == nil && false
	})
	c := e.Dial(address)
	e.write(c, "x")
	wait(e, "the server", func() { <-waits })
	time.Sleep(50 * time.Millisecond)
	e.write(c, "y")
	e.read(c, "xy")
}

// pattern is n bytes that repeat nowhere near.
func pattern(n int) []byte {
	p := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(p) // never fails
	return p
}

func largeBody(e *Env) {
	body := pattern(8 << 20)
	address := e.Serve(func(c loop.Conn) bool {
		got := make([]byte, 0, len(body))
		p := make([]byte, 64<<10)
		for len(got) < len(body) {
			n, err := c.Read(p[:min(len(p), len(body)-len(got))])
			if !assert.NoError(e, err) {
				return false
			}
			got = append(got, p[:n]...)
		}
		assert.True(e, bytes.Equal(body, got))
		_, err := c.Write([]byte("ok"))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, string(body))
	e.read(c, "ok")
	e.write(c, string(body))
	e.read(c, "ok")
}

func floodWhileBusy(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Loop().Sleep(50 * time.Millisecond)
		return echoLines(c)
	})
	c := e.Dial(address)
	lines := strings.Repeat(strings.Repeat("z", 99)+"\n", 5000)
	go func() { _, _ = io.WriteString(c, lines) }()
	e.read(c, lines)
}

// Receives that find no buffer wait for one; none is lost, none spins.
func bufferExhaustion(e *Env) {
	cfg := e.config
	cfg.Buffers, cfg.BufferBytes = 4, 64
	e.restart(cfg)
	address := e.Serve(echoLines)
	line := strings.Repeat("b", 500) + "\n"
	var conns []net.Conn
	for range 64 {
		conns = append(conns, e.Dial(address))
	}
	for range 3 {
		for _, c := range conns {
			e.write(c, line)
		}
		for _, c := range conns {
			e.read(c, line)
		}
	}
}

func headsAndBodies(e *Env) {
	const bodyBytes = 100_000
	address := e.Serve(func(c loop.Conn) bool {
		for {
			line, err := readLine(c)
			if err != nil {
				return false
			}
			c.Consume(len(line))
			p, left := make([]byte, 40_000), bodyBytes
			sum := 0
			for left > 0 {
				n, err := c.Read(p[:min(left, len(p))])
				if !assert.NoError(e, err) {
					return false
				}
				for _, b := range p[:n] {
					sum += int(b)
				}
				left -= n
			}
			assert.Equal(e, bodyBytes*int('q'), sum)
			if _, err := c.Write([]byte("done\n")); err != nil {
				return false
			}
			if len(c.Peek()) == 0 {
				return c.Flush() == nil
			}
		}
	})
	c := e.Dial(address)
	message := "head\n" + strings.Repeat("q", bodyBytes)
	go func() { _, _ = io.WriteString(c, strings.Repeat(message, 5)) }()
	e.read(c, strings.Repeat("done\n", 5))
	e.write(c, message)
	e.read(c, "done\n")
}
