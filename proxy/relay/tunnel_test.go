package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// tunnelRig is a tunnel between two peers.
type tunnelRig struct {
	*looptest.Env
	left, right *looptest.Peer
	ends        [2]loop.Conn
	buffers     Buffers
	ending      chan Ending
}

func newTunnelRig(t *testing.T, engine loop.Engine) *tunnelRig {
	r := &tunnelRig{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), ending: make(chan Ending, 1)}
	r.left, r.ends[0] = r.Pair()
	r.right, r.ends[1] = r.Pair()
	for range 2 {
		r.buffers.Put(make([]byte, BufferBytes))
	}
	return r
}

// run starts the tunnel. What is left open when it has ended is closed.
func (r *tunnelRig) run(allowed Silence) {
	r.Post(func() {
		r.Loop.Go(func() {
			ending := Tunnel(r.ends, &r.buffers, allowed)
			r.ends[0].Close()
			r.ends[1].Close()
			r.ending <- ending
		})
	})
}

// ended waits for the tunnel's end, and wants all its memory back.
func (r *tunnelRig) ended() (ending Ending) {
	r.Helper()
	select {
	case ending = <-r.ending:
	case <-time.After(patience):
		r.Fatal("the tunnel has not ended")
	}
	r.Post(func() { assert.Len(r, r.buffers.free, 2, "buffers") })
	return ending
}

var patient = Silence{Idle: patience, Grace: patience}

func tunnels(t *testing.T, allowed Silence, test func(t *testing.T, r *tunnelRig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := newTunnelRig(t, engine)
		r.run(allowed)
		test(t, r)
	})
}

// The end of one direction is passed on, and leaves the other one alone.
func TestTunnelHalfClose(t *testing.T) {
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		for range 3 {
			r.left.Send("pi", "ng")
			r.right.Expect("ping")
			r.right.Send("pong")
			r.left.Expect("pong")
		}
		r.left.Send("last")
		assert.NoError(t, r.left.CloseWrite())
		r.right.Expect("last")
		r.right.End()
		for range 3 {
			r.right.Send("still here")
			r.left.Expect("still here")
		}
		assert.NoError(t, r.right.CloseWrite())
		r.left.End()
		assert.Equal(t, Ending{Moved: [2]int64{3*4 + 4, 3*4 + 30}}, r.ended())
	})
}

// What came before the tunnel goes first, and so does what was written.
func TestTunnelEarlyBytes(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := newTunnelRig(t, engine)
		r.left.Send("early ")
		r.right.Send("early too ")
		r.Task(func() {
			for _, c := range r.ends {
				for len(c.Peek()) == 0 {
					assert.NoError(t, c.Fill())
				}
			}
			_, err := r.ends[1].Write([]byte("head "))
			assert.NoError(t, err)
		})
		r.run(patient)
		r.right.Expect("head early ")
		r.left.Expect("early too ")
		r.left.Send("late")
		r.right.Expect("late")
		assert.NoError(t, r.left.Close())
		r.right.End()
		assert.NoError(t, r.right.Close())
		assert.Equal(t, [2]int64{10, 10}, r.ended().Moved)
	})
}

func TestTunnelReset(t *testing.T) {
	for side, name := range []string{"left", "right"} {
		for _, half := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
					resets, other := r.left, r.right
					if side == 1 {
						resets, other = r.right, r.left
					}
					other.Send("hello")
					resets.Expect("hello")
					if half { // the other one has said its last
						assert.NoError(t, other.CloseWrite())
						resets.End()
					}
					resets.Reset()
					got, err := other.Rest()
					assert.Empty(t, got)
					assert.ErrorContains(t, err, "reset")
					ending := r.ended()
					assert.Error(t, ending.Err)
					assert.Equal(t, side, ending.Side)
				})
			})
		}
	}
}

const drops = 16

// drip sends bytes for longer than bound, with pauses far shorter than that. It
// is false if the machine was too slow: then nothing can be said about bound.
func drip(p *looptest.Peer, bound time.Duration) bool {
	last := time.Now()
	for range drops {
		time.Sleep(bound / (drops - 3))
		if time.Since(last) > bound/3 {
			return false
		}
		last = time.Now()
		p.Send("x")
	}
	return true
}

// A tunnel is idle when neither direction moves a byte.
func TestTunnelIdle(t *testing.T) {
	const idle = 500 * time.Millisecond
	tunnels(t, Silence{Idle: idle, Grace: patience}, func(t *testing.T, r *tunnelRig) {
		for _, p := range []*looptest.Peer{r.left, r.right} { // each for longer than idle, while the other is silent
			if !drip(p, idle) {
				return
			}
		}
		r.right.Expect(strings.Repeat("x", drops))
		r.left.Expect(strings.Repeat("x", drops))
		for _, p := range []*looptest.Peer{r.left, r.right} {
			_, err := p.Rest()
			assert.ErrorContains(t, err, "reset")
		}
		assert.Equal(t, loop.ErrDeadline, r.ended().Err)
	})
}

// Once one direction has ended, the other must not be silent for long.
func TestTunnelGrace(t *testing.T) {
	const grace = 500 * time.Millisecond
	for _, ends := range []string{"left", "right"} {
		t.Run(ends, func(t *testing.T) {
			tunnels(t, Silence{Idle: patience, Grace: grace}, func(t *testing.T, r *tunnelRig) {
				first, other := r.left, r.right
				if ends == "right" {
					first, other = r.right, r.left
				}
				began := time.Now()
				assert.NoError(t, first.CloseWrite())
				other.End()
				if time.Since(began) > grace/3 || !drip(other, grace) {
					return
				}
				first.Expect(strings.Repeat("x", drops))
				_, err := first.Rest()
				assert.ErrorContains(t, err, "reset")
				assert.Equal(t, loop.ErrDeadline, r.ended().Err)
			})
		})
	}
}

// Large volumes both ways at once, in pieces of all sizes.
func TestTunnelVolume(t *testing.T) {
	const size = 6<<20 + 11
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		volume := looptest.Pattern(size)
		backwards := append([]byte(nil), volume...)
		for i := range backwards {
			backwards[i] ^= 0xff
		}
		for _, p := range []*looptest.Peer{r.left, r.right} {
			assert.NoError(t, p.SetDeadline(time.Now().Add(12*patience))) // the machine may be busy
		}
		done := make(chan struct{}, 4)
		send := func(p *looptest.Peer, b []byte, seed uint64) {
			rng := rand.New(rand.NewPCG(seed, 1))
			for len(b) > 0 {
				n := min(len(b), 1+rng.IntN(1<<rng.IntN(19)))
				_, err := p.Write(b[:n])
				assert.NoError(t, err)
				b = b[n:]
			}
			assert.NoError(t, p.CloseWrite())
			done <- struct{}{}
		}
		receive := func(p *looptest.Peer, want []byte) {
			got, err := io.ReadAll(p.In)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(want, got), "%d bytes have changed", len(got))
			done <- struct{}{}
		}
		go send(r.left, volume, 1)
		go send(r.right, backwards, 2)
		go receive(r.right, volume)
		go receive(r.left, backwards)
		for range 4 {
			<-done
		}
		assert.Equal(t, Ending{Moved: [2]int64{size, size}}, r.ended())
	})
}

// A side that does not read holds the other one back, not our memory. That it is
// slow is no silence.
func TestTunnelBackPressure(t *testing.T) {
	const size = 32 << 20
	volume := looptest.Pattern(size)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := newTunnelRig(t, engine)
		before := looptest.HeapInUse()
		// Within grace a busy machine has the other side begin, and go on where it may.
		r.run(Silence{Idle: patience, Grace: time.Second})
		assert.NoError(t, r.right.CloseWrite())
		r.left.End()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, err := r.left.Write(volume)
			assert.NoError(t, err)
			assert.NoError(t, r.left.CloseWrite())
		}()
		time.Sleep(1500 * time.Millisecond) // until the kernel's buffers are full, and longer than grace
		assert.Less(t, looptest.HeapInUse()-before, size/4)
		got, err := io.ReadAll(r.right.In)
		assert.NoError(t, err)
		assert.True(t, bytes.Equal(volume, got))
		<-sent
		assert.NoError(t, r.ended().Err)
	})
}

// A tunnel that waits holds no buffer, whatever went through it before.
func TestTunnelHoldsNothing(t *testing.T) {
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		for _, size := range []int{1, bulkBytes - 1, bulkBytes, 300_000} {
			text := strings.Repeat("x", size)
			for _, p := range []*looptest.Peer{r.left, r.right} {
				go func() { _, _ = io.WriteString(p, text) }()
			}
			r.left.Expect(text)
			r.right.Expect(text)
			r.Eventually("the buffers to come back", func() bool {
				free := 0
				r.Post(func() { free = len(r.buffers.free) })
				return free == 2
			})
		}
		assert.NoError(t, r.left.CloseWrite())
		assert.NoError(t, r.right.CloseWrite())
		assert.NoError(t, r.ended().Err)
	})
}

func TestTunnelStopped(t *testing.T) {
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		r.left.Send("hello")
		r.right.Expect("hello")
		r.Loop.Stop()
		for _, p := range []*looptest.Peer{r.left, r.right} {
			_, err := p.Rest()
			assert.ErrorContains(t, err, "reset")
		}
		assert.Equal(t, loop.ErrStopped, (<-r.ending).Err)
	})
}
