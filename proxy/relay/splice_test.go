package relay

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// transfer sends a volume through the tunnel, both ways, and wants it back.
func (r *tunnelRig) transfer(t *testing.T, volume []byte) {
	var all sync.WaitGroup
	for _, p := range []*looptest.Peer{r.left, r.right} {
		assert.NoError(t, p.SetDeadline(time.Now().Add(12*patience))) // the machine may be busy
		all.Go(func() {
			_, err := p.Write(volume)
			assert.NoError(t, err)
			assert.NoError(t, p.CloseWrite())
		})
		all.Go(func() {
			got, err := io.ReadAll(p.In)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(volume, got), "%d bytes have changed", len(got))
		})
	}
	all.Wait()
}

func (r *tunnelRig) spliced() bool { return r.Loop.Counters().Spliced.Load() > 0 }

// splices reports that this system has it.
func (r *tunnelRig) splices() bool {
	_, can := r.ends[0].(loop.Splicer)
	return can
}

// A bulk is spliced, a conversation is not, and what cannot be spliced is copied.
func TestTunnelSplices(t *testing.T) {
	size := 64 << 20
	if testing.Short() {
		size = 16 << 20 // more than pipes and sockets hold
	}
	volume := looptest.Pattern(size)
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		for range 50 {
			r.left.Send("some words")
			r.right.Expect("some words")
		}
		assert.False(t, r.spliced())
		r.transfer(t, volume)
		assert.Equal(t, [2]int64{500 + int64(size), int64(size)}, r.ended().Moved)
		assert.Equal(t, r.splices(), r.spliced())
		assert.Zero(t, r.Loop.Counters().Pipes.Load())
	})
	for side, name := range []string{"left", "right"} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := newTunnelRig(t, engine)
				r.ends[side] = plain(r.ends[side])
				r.run(patient)
				r.transfer(t, volume[:8<<20])
				assert.NoError(t, r.ended().Err)
				assert.False(t, r.spliced())
			})
		})
	}
}

// unspliced is a connection whose kind the system does not splice after all.
type unspliced struct{ loop.Splicer }

func (unspliced) ReadPipe(*loop.Pipe) (int, error) { return 0, loop.ErrNoSplice }

func TestTunnelCannotSplice(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := newTunnelRig(t, engine)
		if !r.splices() {
			return
		}
		r.ends[0] = unspliced{r.ends[0].(loop.Splicer)}
		r.run(patient)
		r.transfer(t, looptest.Pattern(8<<20))
		assert.NoError(t, r.ended().Err)
		assert.True(t, r.spliced(), "the other direction")
	})
}

// A direction that falls silent gives its pipe back, and takes one again.
func TestTunnelHoldsNoPipe(t *testing.T) {
	volume := looptest.Pattern(8 << 20)
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		for range 3 {
			before := r.Loop.Counters().Spliced.Load()
			go func() { _, _ = r.left.Write(volume) }()
			got := make([]byte, len(volume))
			_, err := io.ReadFull(r.right.In, got)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(volume, got))
			r.Eventually("the pipe to come back", func() bool { return r.Loop.Counters().Pipes.Load() == 0 })
			assert.Equal(t, r.splices(), r.Loop.Counters().Spliced.Load() > before)
		}
		assert.NoError(t, r.left.CloseWrite())
		assert.NoError(t, r.right.CloseWrite())
		assert.NoError(t, r.ended().Err)
	})
}

// Where there is no pipe, bytes are copied, and a pipe is asked for later.
func TestTunnelWithoutPipes(t *testing.T) {
	volume := looptest.Pattern(8 << 20)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		t.Run("the worker has too many", func(t *testing.T) {
			r := newTunnelRig(t, engine)
			var lent []*loop.Pipe
			r.Post(func() {
				for pipe, err := r.Loop.Pipe(); err == nil; pipe, err = r.Loop.Pipe() {
					lent = append(lent, pipe)
				}
			})
			r.run(patient)
			r.transfer(t, volume)
			assert.NoError(t, r.ended().Err)
			assert.False(t, r.spliced())
			r.Post(func() {
				for _, pipe := range lent {
					r.Loop.PutPipe(pipe)
				}
			})
		})
		t.Run("the process has too many descriptors", func(t *testing.T) {
			r := newTunnelRig(t, engine)
			var limit syscall.Rlimit
			require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
			none := limit
			none.Cur = 3
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
			r.run(patient)
			r.transfer(t, volume)
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
			assert.NoError(t, r.ended().Err)
			assert.False(t, r.spliced())
		})
	})
}

// The kernel holds no more than a pipe for a side that does not read, and we
// nothing.
func TestTunnelSplicedBackPressure(t *testing.T) {
	tunnels(t, patient, func(t *testing.T, r *tunnelRig) {
		before := looptest.HeapInUse()
		var sent atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for p := make([]byte, 64<<10); ; {
				n, err := r.left.Write(p)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
		taken := int64(-1)
		r.Eventually("the sender to be held back", func() bool {
			was := taken
			taken = sent.Load()
			time.Sleep(50 * time.Millisecond)
			return taken > 0 && was == taken
		})
		assert.Less(t, taken, int64(64<<20))
		assert.Less(t, looptest.HeapInUse()-before, 8<<20)
		r.right.Reset()
		assert.Equal(t, 1, r.ended().Side)
		<-ended
	})
}

// A silence ends the tunnel also where the bulk before it was spliced; a peer who
// takes little at a time is not silent.
func TestTunnelSplicedIdle(t *testing.T) {
	const idle = 800 * time.Millisecond
	volume := looptest.Pattern(16 << 20)
	tunnels(t, Silence{Idle: idle, Grace: patience}, func(t *testing.T, r *tunnelRig) {
		go func() { _, _ = r.left.Write(volume) }()
		got := make([]byte, len(volume))
		for at, begin, last := 0, time.Now(), time.Now(); at < len(got); { // for longer than that
			n, err := r.right.In.Read(got[at:min(len(got), at+256<<10)])
			if time.Since(last) > idle/3 {
				return // the machine is too slow to say anything
			}
			last = time.Now()
			if !assert.NoError(t, err, "after %d", at) {
				return
			}
			at += n
			if time.Since(begin) < 2*idle {
				time.Sleep(10 * time.Millisecond)
			}
		}
		assert.True(t, bytes.Equal(volume, got))
		_, err := r.left.Rest()
		assert.ErrorContains(t, err, "reset")
		assert.Equal(t, loop.ErrDeadline, r.ended().Err)
	})
}

// tagged is a stream whose every word says whose it is.
func tagged(tag uint32, words int) []byte {
	p := make([]byte, 0, 8*words)
	for i := range words {
		p = binary.BigEndian.AppendUint32(p, tag)
		p = binary.BigEndian.AppendUint32(p, uint32(i))
	}
	return p
}

// checkTagged counts the bytes that come, and wants all to have the tag, in order.
func checkTagged(in io.Reader, tag uint32) (n int, foreign bool) {
	p := make([]byte, 64<<10)
	for held := 0; ; {
		m, err := in.Read(p[held:])
		held += m
		whole := held - held%8
		for at := 0; at < whole; at += 8 {
			if binary.BigEndian.Uint32(p[at:]) != tag || binary.BigEndian.Uint32(p[at+4:]) != uint32((n+at)/8) {
				return n, true
			}
		}
		n += whole
		held = copy(p, p[whole:held])
		if err != nil {
			return n, false
		}
	}
}

// No byte of one tunnel ever comes out of another one, however they end. Resets
// come while pipes are full, so that most of these have something in them.
func TestTunnelNothingCrosses(t *testing.T) {
	const tunnelsAtOnce = 24
	rounds, words := 4, 1<<19
	if testing.Short() {
		rounds, words = 2, 1<<17 // the second finds pipes of the first
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		var buffers Buffers
		var tag atomic.Uint32
		var foreign, whole, tunnels atomic.Int64
		one := func(rng *rand.Rand, left, right net.Conn, ends [2]loop.Conn) {
			var all sync.WaitGroup
			all.Go(func() {
				e.Task(func() {
					Tunnel(ends, &buffers, patient)
					ends[0].Close()
					ends[1].Close()
				})
			})
			for i, p := range []net.Conn{left, right} {
				mine, to := tag.Add(1), []net.Conn{right, left}[i]
				all.Go(func() {
					_, _ = p.Write(tagged(mine, words))
					_ = p.(*net.TCPConn).CloseWrite()
				})
				lazy := time.Duration(rng.IntN(8)) * time.Millisecond
				all.Go(func() {
					time.Sleep(lazy) // pipes fill meanwhile
					n, crossed := checkTagged(to, mine)
					if crossed {
						foreign.Add(1)
					}
					if n == 8*words {
						whole.Add(1)
					}
				})
			}
			if victim := rng.IntN(3); victim < 2 {
				p, after := []net.Conn{left, right}[victim], time.Duration(rng.IntN(12))*time.Millisecond
				all.Go(func() {
					time.Sleep(after)
					_ = p.(*net.TCPConn).SetLinger(0)
					_ = p.Close()
				})
			}
			all.Wait()
			tunnels.Add(1)
		}
		var running sync.WaitGroup
		for i := range tunnelsAtOnce {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			type pair struct {
				left, right *looptest.Peer
				ends        [2]loop.Conn
			}
			var pairs []pair
			for range rounds {
				var p pair
				p.left, p.ends[0] = e.Pair()
				p.right, p.ends[1] = e.Pair()
				pairs = append(pairs, p)
			}
			running.Go(func() {
				for _, p := range pairs {
					one(rng, p.left.TCPConn, p.right.TCPConn, p.ends)
				}
			})
		}
		running.Wait()
		assert.EqualValues(t, tunnelsAtOnce*rounds, tunnels.Load())
		assert.Zero(t, foreign.Load(), "streams with bytes of others")
		assert.NotZero(t, whole.Load(), "some were not reset")
		assert.Less(t, whole.Load(), 2*tunnels.Load(), "some were")
		assert.Zero(t, e.Loop.Counters().Pipes.Load())
	})
}
