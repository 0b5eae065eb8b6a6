package looptest

import (
	"bytes"
	"io"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"atlas/proxy/loop"
)

// lifeTests are about connections and workers that come and go.
var lifeTests = map[string]func(*Env){
	"connections open, speak and close many times":   churn,
	"addresses of both ends":                         addresses,
	"an idle connection that expires":                idleExpires,
	"an accepted connection that never speaks":       neverSpeaks,
	"close with operations armed: the peer sees it":  closeArmed,
	"close from another task ends a wait":            closeDuringWait,
	"a parked connection that the peer ends":         parkedEnds,
	"a parked connection that speaks out of turn":    parkedSpeaks,
	"a parked connection that expires":               parkedExpires,
	"a parked connection that is taken back":         parkedReturns,
	"a parked connection of large and small answers": parkedSizes,
	"a parked connection and urgent bytes":           parkedUrgent,
	"drain: what is in flight ends in order":         drainInFlight,
	"drain: idle connections end, new are refused":   drainIdle,
	"drain: a connection that has not spoken yet":    drainUnspoken,
	"drain: it wakes who dozes, not who sleeps":      drainWakes,
	"stop: every wait ends":                          stopEndsWaits,
	"a descriptor number is reused after close":      descriptorReuse,
	"post after the end is refused":                  postAfterEnd,
	"posts from many goroutines":                     postMany,
	"attachments stay":                               attachments,
}

func churn(e *Env) {
	address := e.Serve(echoLines)
	for i := range 300 {
		c := e.Dial(address)
		e.write(c, "x\n")
		e.read(c, "x\n")
		if i%3 == 0 {
			require.NoError(e, c.SetLinger(0)) // every third by a reset
		}
		require.NoError(e, c.Close())
	}
	e.eventually("all to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
	assert.EqualValues(e, 300, e.Loop.Counters().Accepted.Load())
}

func addresses(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		_, err := c.Write([]byte(c.Local().String() + " " + c.Remote().String() + "\n"))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, "x")
	e.read(c, c.RemoteAddr().String()+" "+c.LocalAddr().String()+"\n")
}

func idleExpires(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		keep := echoLines(c)
		c.SetReadDeadline(c.Loop().Now().After(30 * time.Millisecond))
		return keep
	})
	c := e.Dial(address)
	e.write(c, "x\n")
	e.read(c, "x\n")
	e.readEnd(c)
}

func neverSpeaks(e *Env) {
	address := e.Listen(Funcs{
		OnOpen:  func(c loop.Conn) { c.SetReadDeadline(c.Loop().Now().After(30 * time.Millisecond)) },
		OnServe: echoLines,
	})
	e.readEnd(e.Dial(address))
}

func closeArmed(e *Env) {
	address := e.Serve(func(c loop.Conn) bool { return false })
	c := e.Dial(address)
	e.write(c, "x")
	// Unread bytes make the kernel answer with a reset; both are an end.
	_, err := io.ReadAll(c)
	if err != nil {
		assert.ErrorContains(e, err, "reset")
	}
}

func closeDuringWait(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		waits := e.Loop.Go(func() { assert.Equal(e, loop.ErrClosed, c.Fill()) })
		e.Loop.Sleep(5 * time.Millisecond)
		c.Close()
		assert.NoError(e, waits.Join())
		_, err := c.Write([]byte("x"))
		assert.Equal(e, loop.ErrClosed, err)
	})
}

// lost notes which connections were lost, and closes them, as a pool does.
type lost chan loop.Conn

func (l lost) Lost(c loop.Conn) { c.Close(); l <- c }

func parkedEnds(e *Env) {
	peer, c := e.peers()
	told := make(lost, 2)
	e.Task(func() { c.Park(told) })
	require.NoError(e, peer.Close())
	wait(e, "loss", func() { assert.Same(e, c, <-told) })
	assert.Empty(e, told)
}

func parkedSpeaks(e *Env) {
	peer, c := e.peers()
	told := make(lost, 2)
	e.Task(func() { c.Park(told) })
	e.write(peer, "HTTP/1.1 408 too late\r\n\r\n")
	wait(e, "loss", func() { assert.Same(e, c, <-told) })
}

func parkedExpires(e *Env) {
	_, c := e.peers()
	told := make(lost, 2)
	e.Task(func() {
		c.SetReadDeadline(e.Loop.Now().After(30 * time.Millisecond))
		c.Park(told)
	})
	wait(e, "loss", func() { assert.Same(e, c, <-told) })
}

func parkedReturns(e *Env) {
	peer, c := e.peers()
	told := make(lost, 2)
	go echo(peer)
	for range 3 {
		e.Task(func() { c.Park(told) })
		e.Task(func() {
			if !assert.True(e, c.Unpark()) {
				return
			}
			_, err := c.Write([]byte("hello\n"))
			assert.NoError(e, err)
			assert.NoError(e, c.Flush())
			line, err := readLine(c)
			assert.NoError(e, err)
			assert.Equal(e, "hello\n", string(line))
			c.Consume(len(line))
		})
	}
	require.NoError(e, peer.Close())
	time.Sleep(20 * time.Millisecond)
	e.Task(func() {
		assert.False(e, c.Unpark(), "the peer has gone")
		c.Close()
	})
	assert.Empty(e, told)
}

// parkedSizes has answers follow one another whose sizes have nothing to do with each other:
// how the next one is received depends on the last one, and must not show.
func parkedSizes(e *Env) {
	const piece = 64 << 10
	peer, c := e.peers()
	told := make(lost, 2)
	content := pattern(300_000)
	answers := []struct{ head, body int }{
		{10, 0}, {10, 100_000}, {10, 100_000}, {10, 3}, {10, 9_000}, {12_000, 200_000}, {12_000, 20_000}, {40_000, 0},
		{12_000, 300_000}, {4_096, 300_000}, {4_095, 0}, {10, 100_000}, {10, 0},
	}
	for _, a := range answers {
		answer := append(bytes.Repeat([]byte("h"), a.head-1), '\n')
		answer = append(answer, content[:a.body]...)
		e.Task(func() { c.Park(told) })
		sent := make(chan error, 1)
		e.Task(func() {
			assert.True(e, c.Unpark())
			go func() { _, err := peer.Write(answer); sent <- err }()
			c.SetReadDeadline(e.Loop.Now().After(patience))
			line, err := readLine(c)
			assert.NoError(e, err)
			assert.Len(e, line, a.head)
			c.Consume(len(line))
			var body []byte
			for p := make([]byte, piece); err == nil && len(body) < a.body; {
				var n int
				n, err = c.Read(p[:min(piece, a.body-len(body))])
				body = append(body, p[:n]...)
			}
			assert.NoError(e, err)
			assert.True(e, bytes.Equal(content[:a.body], body), "%d bytes behind a head of %d", a.body, a.head)
		})
		require.NoError(e, <-sent)
	}
	e.Task(func() {
		c.SetReadDeadline(0)
		c.Park(told)
	})
	require.NoError(e, peer.Close())
	wait(e, "loss", func() { assert.Same(e, c, <-told) })
}

// parkedUrgent has the kernel say that there is more where no receive brings it: an
// urgent byte. What is here must not wait for that.
func parkedUrgent(e *Env) {
	const large, bufferBytes = 300_000, 4 << 10
	peer, c := e.peers()
	raw, err := peer.SyscallConn()
	require.NoError(e, err)
	send := func(n, flags int) {
		for n > 0 {
			var sent int
			var err error
			assert.NoError(e, raw.Write(func(fd uintptr) bool {
				sent, err = unix.SendmsgN(int(fd), make([]byte, n), nil, nil, flags)
				return err != unix.EAGAIN
			}))
			if !assert.NoError(e, err) {
				return
			}
			n -= sent
		}
	}
	p := make([]byte, 64<<10)
	read := func(n int) {
		c.SetReadDeadline(e.Loop.Now().After(patience / 4))
		for n > 0 {
			m, err := c.Read(p)
			if !assert.NoError(e, err) {
				return
			}
			n -= m
		}
		assert.Zero(e, n)
	}
	go send(large, 0)
	e.Task(func() {
		read(large)
		c.Park(make(lost, 1))
	})
	began := time.Now()
	e.Task(func() {
		assert.True(e, c.Unpark())
		go send(bufferBytes+1, unix.MSG_OOB) // the last one is urgent
		assert.NoError(e, c.Fill())
		read(bufferBytes)
	})
	assert.Less(e, time.Since(began), patience/4, "it waited for the urgent byte")
}

func drainInFlight(e *Env) {
	asked := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		close(asked)
		for !c.Loop().Draining() {
			c.Loop().Sleep(time.Millisecond)
		}
		_, err := c.Write([]byte("complete"))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, "x")
	wait(e, "request", func() { <-asked })
	e.Loop.Drain()
	e.read(c, "complete")
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
}

func drainIdle(e *Env) {
	address := e.Serve(echoLines)
	c := e.Dial(address)
	e.write(c, "x\n")
	e.read(c, "x\n")
	_, upstream := e.peers()
	e.Task(func() { upstream.Park(make(lost, 1)) })
	e.Loop.Drain()
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
	assert.EqualValues(e, 0, e.Loop.Counters().Dialled.Load())
}

func drainUnspoken(e *Env) {
	e.spokenTo()
	address := e.Serve(echoLines)
	c := e.Dial(address)
	e.eventually("accept", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	e.Loop.Drain()
	time.Sleep(20 * time.Millisecond)
	e.write(c, "on the way\n")
	e.read(c, "on the way\n")
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
}

func drainWakes(e *Env) {
	var began loop.Instant
	asleep, dozed, slept := make(chan struct{}), false, false
	e.Loop.Post(func() {
		e.Loop.Go(func() {
			began = e.Loop.Now()
			e.Loop.Doze(time.Millisecond)
			assert.GreaterOrEqual(e, e.Loop.Now(), began.After(time.Millisecond))
			close(asleep)
			e.Loop.Doze(time.Hour)
			dozed = true
			e.Loop.Doze(time.Hour)
			e.Loop.Sleep(time.Millisecond)
			assert.False(e, slept)
			e.Loop.Stop()
		})
		e.Loop.Go(func() {
			e.Loop.Sleep(time.Hour)
			slept = true
			assert.True(e, dozed)
		})
	})
	wait(e, "sleepers", func() { <-asleep })
	e.Loop.Drain()
	wait(e, "worker", e.Loop.Wait)
	assert.True(e, slept)
}

func stopEndsWaits(e *Env) {
	began := make(chan struct{}, 8)
	ended := make(chan error, 8)
	_, up := e.peers()
	address := e.Serve(func(c loop.Conn) bool {
		line, _ := readLine(c)
		what := string(line)
		c.Consume(len(line))
		began <- struct{}{}
		switch what {
		case "fill\n":
			ended <- c.Fill()
		case "read\n":
			_, err := c.Read(make([]byte, 64<<10))
			ended <- err
		case "write\n":
			_, err := c.Write(make([]byte, 64<<20))
			ended <- err
		case "upstream\n":
			ended <- up.Fill()
			up.Close()
		case "sleep\n":
			c.Loop().Sleep(time.Hour)
			ended <- loop.ErrStopped
		}
		return false
	})
	kinds := []string{"fill", "read", "write", "upstream", "sleep"}
	for _, kind := range kinds {
		e.write(e.Dial(address), kind+"\n")
	}
	for range kinds {
		<-began
	}
	time.Sleep(10 * time.Millisecond)
	e.Loop.Stop()
	wait(e, "worker", e.Loop.Wait)
	for range kinds {
		assert.Equal(e, loop.ErrStopped, <-ended)
	}
}

// A slot and a descriptor number that serve a new connection must not get what
// was meant for the old one: late completions, timers, interrupts.
func descriptorReuse(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.SetReadDeadline(c.Loop().Now().After(patience))
		return echoLines(c)
	})
	for i := range 100 {
		old := e.Dial(address)
		e.write(old, "partial") // a task waits in Fill when the end comes
		fresh := e.Dial(address)
		require.NoError(e, old.Close())
		text := strings.Repeat("n", i+1) + "\n"
		e.write(fresh, text)
		e.read(fresh, text)
		next := e.Dial(address)
		e.write(next, "next\n")
		e.read(next, "next\n")
		e.write(fresh, text)
		e.read(fresh, text)
		require.NoError(e, fresh.Close())
		require.NoError(e, next.Close())
	}
}

func postAfterEnd(e *Env) {
	e.Loop.Drain()
	wait(e, "worker", e.Loop.Wait)
	assert.False(e, e.Loop.Post(func() { e.Error("ran after the end") }))
}

func postMany(e *Env) {
	const goroutines, each = 8, 200
	n := 0
	done := make(chan struct{})
	for range goroutines {
		go func() {
			for range each {
				e.Loop.Post(func() {
					if n++; n == goroutines*each {
						close(done)
					}
				})
			}
		}()
	}
	wait(e, "posts", func() { <-done })
}

func attachments(e *Env) {
	address := e.Listen(Funcs{
		OnOpen: func(c loop.Conn) { c.Attach(new(int)) },
		OnServe: func(c loop.Conn) bool {
			n := c.Attachment().(*int)
			*n++
			c.Consume(len(c.Peek()))
			_, err := c.Write([]byte{byte('0' + *n)})
			return err == nil && c.Flush() == nil
		},
	})
	c := e.Dial(address)
	for _, want := range []string{"1", "2", "3"} {
		e.write(c, "x")
		e.read(c, want)
	}
}
