package tlsio_test

import (
	"crypto/tls"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// Connections that wait for a request hold no task and no buffer: what is left is
// crypto/tls's own.
func TestIdleIsSmall(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		const conns = 300
		r.serve(func(c loop.Conn) bool {
			c.SetReadDeadline(0)
			return echo(c)
		})
		client := r.trusting()
		client.ClientSessionCache = nil
		open := func(n int) (conns []*tls.Conn) {
			for range n {
				c := r.client(client)
				says(t, c, "hello")
				conns = append(conns, c)
			}
			return conns
		}
		open(20) // the worker's memory is there
		before := looptest.HeapInUse()
		kept := open(conns)
		each := (looptest.HeapInUse() - before) / conns
		t.Logf("%d bytes for both ends of an idle connection", each)
		// Both ends and the test's own are in this process: 7 KB of crypto/tls at
		// either end.
		assert.Less(t, each, 26<<10)
		idle := r.Loop.Counters().Tasks.Load()
		if r.Loop.Engine() == loop.IOUring {
			assert.LessOrEqual(t, idle, int64(16))
		}
		runtime.KeepAlive(kept)
	})
}

// A part of a record, or one that is not for the handler, leaves the connection
// idle: a client that is slow within a record holds no task.
func TestIdleWithinRecord(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		served := make(chan string, 10)
		r.serve(func(c loop.Conn) bool {
			served <- string(c.Peek())
			return echo(c)
		})
		f := r.forge()
		record := f.Record(looptest.RecordApplication, []byte("hello")...)
		for i := range record {
			assert.Empty(t, served)
			f.Say(record[i : i+1])
			if i%5 == 0 {
				r.Post(func() {}) // it has seen the byte, or will with the next
			}
		}
		assert.Equal(t, "hello", <-served)
		f.Say(f.KeyUpdate())
		f.Say(f.Record(looptest.RecordApplication))
		f.Say(f.Record(looptest.RecordApplication, []byte("again")...))
		assert.Equal(t, "again", <-served)
		// Two requests in one piece, and one over two records.
		both := append(f.Record(looptest.RecordApplication, []byte("one")...), f.Record(looptest.RecordApplication, []byte("two")...)...)
		f.Say(both)
		assert.Equal(t, "one", <-served)
		assert.Equal(t, "two", <-served)
	})
}

// The idle deadline holds, whatever a client sends that is no request; its end is
// told in order.
func TestIdleExpires(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.listen(looptest.Funcs{
			OnOpen:  func(c loop.Conn) { c.SetReadDeadline(c.Loop().Now().After(100 * time.Millisecond)) },
			OnServe: echo,
		})
		c := r.client(r.trusting())
		rest, err := io.ReadAll(c)
		assert.NoError(t, err, "close_notify")
		assert.Empty(t, rest)
		f := r.forge()
		half := f.Record(looptest.RecordApplication, 'x')
		f.Say(half[:len(half)-1])
		_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
		assert.NoError(t, err)
	})
}

// Who connects and says nothing is gone after the time of a handshake.
func TestSilentClient(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.handshake = 50 * time.Millisecond
		r.serve(echo)
		c := r.Dial(r.address)
		rest, err := io.ReadAll(c)
		assert.NoError(t, err)
		assert.Empty(t, rest)
		assert.Zero(t, r.stats.ClientErrors[stats.HandshakeFailed].Load(), "nothing was begun")
	})
}

// lost notes which connections were lost.
type lost chan loop.Conn

func (l lost) Lost(c loop.Conn) { c.Close(); l <- c }

// Session tickets and new keys are no reason to lose a parked connection; bytes
// and ends are.
func TestParked(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		server := r.config.Clone()
		server.SetSessionTicketKeys([][32]byte{{1}})
		for range 5 {
			// A server sends its tickets behind the handshake: they arrive at a
			// connection that was parked at once.
			peer, c := r.dialled(server)
			told := make(lost, 1)
			r.Task(func() { c.Park(told) })
			time.Sleep(5 * time.Millisecond)
			var usable bool
			r.Task(func() {
				if usable = c.Unpark(); usable {
					c.Park(told)
				}
			})
			assert.True(t, usable)
			assert.Empty(t, told)
			_, err := io.WriteString(peer, "408")
			require.NoError(t, err)
			select {
			case got := <-told:
				assert.Same(t, c, got)
			case <-time.After(patience):
				t.Fatal("waited in vain for the loss")
			}
		}
		for name, end := range map[string]func(*tls.Conn) error{
			"close_notify": (*tls.Conn).CloseWrite,
			"the end":      (*tls.Conn).Close,
			"TCP's end":    func(c *tls.Conn) error { return c.NetConn().Close() },
		} {
			peer, c := r.dialled(server)
			told := make(lost, 1)
			r.Task(func() { c.Park(told) })
			require.NoError(t, end(peer), name)
			select {
			case <-told:
			case <-time.After(patience):
				t.Fatalf("waited in vain for the loss by %s", name)
			}
		}
		// What has come with the last response is no clean connection.
		peer, c := r.dialled(server)
		_, err := io.WriteString(peer, "response and more")
		require.NoError(t, err)
		told := make(lost, 1)
		r.Task(func() {
			p := make([]byte, 8)
			_, err := c.Read(p)
			assert.NoError(t, err)
			assert.Empty(t, c.Peek(), "it is in crypto/tls")
			c.Park(told)
			assert.False(t, c.Unpark())
			c.Close()
		})
		assert.Empty(t, told)
	})
}

// The sessions of an upstream go on.
func TestDialResumes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		server := r.config.Clone()
		server.SetSessionTicketKeys([][32]byte{{1}})
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server.MaxVersion = version
			known := r.peer()
			for i := range 3 {
				peer, c := r.dialledBy(known, server)
				go func() { _, _ = io.Copy(peer, peer) }()
				r.Task(func() {
					_, err := c.Write([]byte("x"))
					assert.NoError(t, err)
					assert.NoError(t, c.Flush())
					assert.NoError(t, c.Fill()) // behind the tickets
					c.Close()
				})
				assert.Equal(t, i > 0, peer.ConnectionState().DidResume, "%x", version)
			}
		}
	})
}

// An end without close_notify is none in order, at either end.
func TestTruncation(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		for name, cut := range map[string]func(*tls.Conn){
			"after a record": func(*tls.Conn) {},
			"in a record":    func(c *tls.Conn) { _, _ = c.NetConn().Write([]byte("\x17\x03\x03\x01\x00half")) },
			"in a header":    func(c *tls.Conn) { _, _ = c.NetConn().Write([]byte("\x17\x03")) },
		} {
			for _, large := range []bool{false, true} {
				peer, c := r.dialled(r.config)
				_, err := io.WriteString(peer, "all there is")
				require.NoError(t, err)
				cut(peer)
				require.NoError(t, peer.NetConn().(interface{ CloseWrite() error }).CloseWrite())
				r.Task(func() {
					var got []byte
					p := make([]byte, 100)
					if large {
						p = make([]byte, 64<<10)
					}
					for err = nil; err == nil; {
						var n int
						n, err = c.Read(p)
						got = append(got, p[:n]...)
					}
					assert.Equal(t, "all there is", string(got))
					assert.Equal(t, io.ErrUnexpectedEOF, err, name)
					assert.Equal(t, io.ErrUnexpectedEOF, c.Fill())
					c.Close()
				})
			}
		}
		ended := make(chan error, 1)
		r.serve(func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			ended <- c.Fill()
			return false
		})
		c := r.client(r.trusting())
		_, err := io.WriteString(c, "x")
		require.NoError(t, err)
		require.NoError(t, c.NetConn().Close())
		assert.Equal(t, io.ErrUnexpectedEOF, <-ended)
		c = r.client(r.trusting())
		_, err = io.WriteString(c, "x")
		require.NoError(t, err)
		require.NoError(t, c.Close())
		assert.Equal(t, io.EOF, <-ended)
	})
}

// What breaks off at our end is no end in order for the peer.
func TestResetIsNoEnd(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.serve(func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			_, _ = c.Write([]byte("half an ans"))
			_ = c.Flush()
			c.Reset()
			return false
		})
		c := r.client(r.trusting())
		_, err := io.WriteString(c, "x")
		require.NoError(t, err)
		_, err = io.ReadAll(c)
		assert.Error(t, err)
	})
}

// skipInvariant skips where the checks or the race detector allocate.
func skipInvariant(t *testing.T) {
	if invariant.Enabled {
		t.Skip("the race detector and invariants allocate")
	}
}

// An exchange allocates nothing but what crypto/tls does: 32 bytes for each record
// that is read, at either end.
func TestAllocations(t *testing.T) {
	skipInvariant(t)
	engines(t, func(t *testing.T, r *rig) {
		r.serve(echo)
		c := r.client(r.trusting())
		p := make([]byte, 1000)
		ask := func() {
			if _, err := c.Write(p); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, p); err != nil {
				t.Error(err)
			}
		}
		for range 100 {
			ask()
		}
		assert.Less(t, testing.AllocsPerRun(1000, ask), 2.5)
	})
}
