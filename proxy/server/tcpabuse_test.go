package server

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// beside has a connection of its own say something and hear it, again and again,
// until stop is called, which returns how long that took at most.
func beside(t *testing.T, k *keys, address string) (stop func() time.Duration) {
	t.Helper()
	c := k.dialTLS(address, nil)
	c.send("echo")
	c.expect("echo")
	var ending atomic.Bool
	var most time.Duration
	var asking sync.WaitGroup
	asking.Go(func() {
		for !ending.Load() {
			_ = c.SetDeadline(time.Now().Add(patience))
			began := time.Now()
			_, err := io.WriteString(c, "hello")
			if err == nil {
				_, err = io.ReadFull(c.in, make([]byte, 5))
			}
			if !assert.NoError(t, err) {
				return
			}
			most = max(most, time.Since(began))
		}
	})
	return func() time.Duration {
		ending.Store(true)
		asking.Wait()
		assert.NoError(t, c.Close())
		return most
	}
}

// byFirstWord is an upstream that does what the first four bytes say.
func byFirstWord(t testing.TB) (address string) {
	return bytesUpstream(t, func(c *net.TCPConn) {
		word := make([]byte, 4)
		if _, err := io.ReadFull(c, word); err != nil {
			return
		}
		switch string(word) {
		case "echo":
			_, _ = c.Write(word)
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			_ = c.CloseWrite()
		case "sink":
			_ = ended(c)
		case "both": // it sends without end and takes everything
			go func() {
				for p := make([]byte, 64<<10); ; {
					if _, err := c.Write(p); err != nil {
						return
					}
				}
			}()
			_ = ended(c)
		case "deaf": // it takes nothing until it is told to
			<-deaf
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			_ = c.CloseWrite()
		}
	})
}

// deaf is closed when the upstreams of that name shall listen.
var deaf chan struct{}

// A client that reads nothing and asks for new keys without end is not read from any
// more: it delays nobody on its worker, whether bytes are on the way to it or not, and
// what it is owed does not grow. The idle time-out ends it.
func TestTCPTLSFlood(t *testing.T) {
	skipShort(t)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, k.tcpTLS(engine, byFirstWord(t), "", "", "[timeouts]", `tunnel = "2s"`), nil)
		for _, word := range []string{"sink", "both"} {
			t.Run(word, func(t *testing.T) {
				stop := beside(t, k, s.Addr())
				before := looptest.HeapInUse()
				f := looptest.Forge(t, s.dial().TCPConn, &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
				f.Say(f.Record(looptest.RecordApplication, []byte(word)...))
				if word == "both" {
					time.Sleep(100 * time.Millisecond) // until what is on its way to it is stuck
				}
				sent, stopped := f.Flood()
				assert.True(t, stopped)
				assert.Less(t, looptest.HeapInUse()-before, 8<<20)
				// One that has been idle, and one that is new.
				c := k.dialTLS(s.Addr(), nil)
				c.send("echo")
				c.expect("echo")
				require.NoError(t, c.Close())
				eventually(t, "the time-out", func() bool { return s.Counters()[0].Open.Load() == 1 })
				t.Logf("%d were taken; an exchange beside them took %v at most", sent, stop())
			})
		}
	})
}

// A tunnel with TLS on one side holds as much of what nobody takes as one without:
// a buffer for each direction.
func TestTCPTLSBackPressure(t *testing.T) {
	skipShort(t)
	const tunnels = 8
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		deaf = make(chan struct{})
		k := newKeys(t)
		s := launch(t, k.tcpTLS(engine, byFirstWord(t), "", ""), nil)
		var clients []*secureClient
		for range tunnels {
			c := k.dialTLS(s.Addr(), nil)
			_ = c.SetDeadline(time.Time{})
			clients = append(clients, c)
		}
		piece := looptest.Pattern(64 << 10)
		before := looptest.HeapInUse()
		var taken atomic.Int64
		var writing sync.WaitGroup
		const pieces = 512 // 32 MiB for each, more than all sockets on the way hold
		for _, c := range clients {
			writing.Go(func() {
				_, err := io.WriteString(c, "deaf")
				for i := 0; i < pieces && err == nil; i++ {
					_, err = c.Write(piece)
					taken.Add(int64(len(piece)))
				}
				assert.NoError(t, err)
				assert.NoError(t, c.CloseWrite())
			})
		}
		last := int64(-1)
		eventually(t, "everything to be stuck", func() bool {
			now := taken.Load()
			stuck := now == last && now > 0
			last = now
			time.Sleep(200 * time.Millisecond)
			return stuck
		})
		assert.Less(t, last, int64(tunnels*pieces*len(piece)), "it was held back")
		assert.Less(t, looptest.HeapInUse()-before, tunnels*(1<<20), "two buffers of 64 KiB each, and not what was written")
		close(deaf)
		// Now it comes back, and is stuck on the way back, before anybody reads.
		last = -1
		eventually(t, "everything to be stuck again", func() bool {
			now := taken.Load()
			stuck := now == last
			last = now
			time.Sleep(200 * time.Millisecond)
			return stuck
		})
		assert.Less(t, looptest.HeapInUse()-before, tunnels*(1<<20))
		var reading sync.WaitGroup
		for _, c := range clients {
			reading.Go(func() {
				for p := make([]byte, len(piece)); ; {
					if _, err := io.ReadFull(c.in, p); err != nil {
						assert.Equal(t, io.EOF, err)
						break
					}
					if string(p) != string(piece) {
						assert.Fail(t, "other bytes")
						break
					}
				}
			})
		}
		writing.Wait()
		reading.Wait()
		assert.Zero(t, s.Counters()[0].Spliced.Load())
		assert.Empty(t, s.log.lines("connection failed"))
	})
}

// What is no TLS, or breaks off, or says what the protocol forbids, ends its own
// connection and nothing else. All that it held comes back.
func TestTCPTLSHostile(t *testing.T) {
	skipShort(t)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		s := launch(t, k.tcpTLS(engine, byFirstWord(t), "", "", "[timeouts]", `handshake = "3s"`), nil)
		cfg := &tls.Config{RootCAs: k.Pool, ServerName: "a.test"}
		use := func() { // once, so that what is kept for later is there
			stop := beside(t, k, s.Addr())
			time.Sleep(50 * time.Millisecond)
			stop()
		}
		use()
		tasks := &s.Counters()[0].Tasks // some are kept for later
		fds, goroutines, heap := descriptors(), runtime.NumGoroutine()-int(tasks.Load()), looptest.HeapInUse()
		stop := beside(t, k, s.Addr())

		const halfOpen = 1000
		var open []*client
		for i := range halfOpen {
			c := s.dial()
			open = append(open, c)
			switch i % 4 {
			case 0: // nothing at all
			case 1:
				c.send("\x16\x03\x01\x02\x00\x01") // a part of a record
			case 2:
				c.send(clientHello(t)[:100])
			case 3:
				c.send(clientHello(t)) // and no answer to the answer
			}
		}
		for range 50 {
			for _, text := range []string{
				"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x80\x2e\x01\x03\x01", "\x16\x03\x01\xff\xff\x01\x00", "\x15\x03\x01\x00\x02\x02\x28",
				"\x17\x03\x03\x00\x05hello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", noise(500),
			} {
				c := s.dial()
				_, _ = io.WriteString(c, text) // it may be refused before it is said
				_ = c.CloseWrite()
				_ = ended(c)
				require.NoError(t, c.Close())
			}
			f := looptest.Forge(t, s.dial().TCPConn, cfg)
			f.Say(f.Record(looptest.RecordApplication, []byte("sink")...))
			f.Say([]byte("\x17\x03\x03\x00\x20" + noise(32)))
			assert.Error(t, ended(f))
			require.NoError(t, f.Close())
			c := s.dial()
			c.send(clientHello(t))
			_ = c.SetLinger(0)
			require.NoError(t, c.Close())
		}
		use() // it goes on, beside those that are half open
		for _, c := range open {
			_ = ended(c) // the handshake's deadline ends them
			_ = c.Close()
		}
		t.Logf("an exchange beside all that took %v at most", stop())
		assert.NotZero(t, s.count("tls_handshake_errors_total", "malformed"))
		assert.GreaterOrEqual(t, s.count("tls_handshake_errors_total", "timeout"), int64(halfOpen*3/4))
		open = nil
		eventually(t, "all to end", func() bool { return s.Counters()[0].Open.Load() == 0 })
		use()
		eventually(t, "everything to come back", func() bool {
			return descriptors() <= fds && runtime.NumGoroutine()-int(tasks.Load()) <= goroutines && tasks.Load() < 100
		})
		assert.Less(t, looptest.HeapInUse()-heap, 8<<20)
		assert.Zero(t, s.Panics())
	})
}

// clientHello is the first record of a good handshake.
func clientHello(t testing.TB) string {
	t.Helper()
	one, other := net.Pipe()
	go func() {
		_ = tls.Client(other, &tls.Config{ServerName: "a.test"}).Handshake() // it gets no answer
	}()
	record := make([]byte, 4096)
	n, err := one.Read(record)
	require.NoError(t, err)
	_ = one.Close()
	return string(record[:n])
}

func noise(n int) string {
	p := make([]byte, n)
	_, _ = rand.Read(p) // never fails
	return string(p)
}
