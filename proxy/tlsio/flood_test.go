package tlsio_test

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A peer that asks for new keys and reads nothing is not read from any more: it
// delays nobody, and what it is owed does not grow.
func TestKeyUpdateFlood(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		const deadline = 2 * time.Second
		ended := make(chan error, 1)
		r.serve(func(c loop.Conn) bool {
			if string(c.Peek()) != "upload" {
				return echo(c)
			}
			c.Consume(6)
			c.SetReadDeadline(c.Loop().Now().After(deadline))
			p := make([]byte, 64<<10)
			for {
				if _, err := c.Read(p); err != nil {
					ended <- err
					return false
				}
			}
		})
		other := r.client(r.trusting())
		says(t, other, "before")
		f := r.forge()
		f.Say(f.Record(looptest.RecordApplication, []byte("upload")...))
		before := looptest.HeapInUse()
		var most atomic.Int64
		stop := make(chan struct{})
		asking := make(chan struct{})
		go func() {
			defer close(asking)
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				_, err := io.WriteString(other, "hello")
				if err == nil {
					_, err = io.ReadFull(other, make([]byte, 5))
				}
				if !assert.NoError(t, err) {
					return
				}
				most.Store(max(most.Load(), int64(time.Since(began))))
			}
		}()
		sent, stopped := f.Flood()
		assert.True(t, stopped)
		assert.Less(t, looptest.HeapInUse()-before, 2<<20)
		t.Logf("%d were taken; an exchange beside them took %v at most", sent, time.Duration(most.Load()))
		assert.Equal(t, loop.ErrDeadline, <-ended)
		close(stop)
		<-asking
		r.Eventually("it to close", func() bool { return r.Loop.Counters().Open.Load() == 1 })
	})
}

// The same while a response is on its way to it, which another task sends: this
// is what blocked a worker where a write of crypto/tls could wait.
func TestKeyUpdateFloodWhileSending(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ended := make(chan [2]error, 1)
		r.serve(func(c loop.Conn) bool {
			if string(c.Peek()) != "both" {
				return echo(c)
			}
			c.Consume(4)
			c.SetWriteDeadline(c.Loop().Now().After(2 * time.Second))
			var writeErr error
			sending := c.Loop().Go(func() {
				for p := make([]byte, 64<<10); writeErr == nil; {
					_, writeErr = c.Write(p)
				}
				c.SetReadDeadline(loop.Past)
			})
			var readErr error
			for p := make([]byte, 64<<10); readErr == nil; {
				_, readErr = c.Read(p)
			}
			assert.NoError(t, sending.Join())
			ended <- [2]error{readErr, writeErr}
			return false
		})
		other := r.client(r.trusting())
		f := r.forge()
		f.Say(f.Record(looptest.RecordApplication, []byte("both")...))
		time.Sleep(50 * time.Millisecond) // until the response is stuck
		before := looptest.HeapInUse()
		_, stopped := f.Flood()
		assert.True(t, stopped)
		for range 100 {
			says(t, other, "hello")
		}
		assert.Less(t, looptest.HeapInUse()-before, 2<<20)
		errs := <-ended
		assert.Equal(t, [2]error{loop.ErrDeadline, loop.ErrDeadline}, errs)
		r.Eventually("it to close", func() bool { return r.Loop.Counters().Open.Load() == 1 })
	})
}

// Who asks for new keys often, and reads, gets them, in either direction of bytes.
func TestKeyUpdates(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		const times = 10_000
		r.serve(func(c loop.Conn) bool {
			c.SetReadDeadline(c.Loop().Now().After(patience))
			p := make([]byte, 64<<10)
			got := 0
			for got < times {
				n, err := c.Read(p)
				if !assert.NoError(t, err) {
					return false
				}
				got += n
			}
			_, err := c.Write([]byte("ok"))
			return err == nil && c.Flush() == nil
		})
		f := r.forge()
		var taken counting
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(&taken, struct{ io.Reader }{f})
		}()
		for range times {
			f.Say(f.KeyUpdate())
			f.Say(f.Record(looptest.RecordApplication, 'x'))
		}
		// Each is answered, and all answers are before the response.
		r.Eventually("the answers", func() bool { return taken.n.Load() >= times*27+5+2+1+16 })
		assert.EqualValues(t, 1, r.Loop.Counters().Open.Load())
		require.NoError(t, f.CloseWrite())
		<-ended
	})
}

// counting counts what is written to it.
type counting struct{ n atomic.Int64 }

func (c *counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
