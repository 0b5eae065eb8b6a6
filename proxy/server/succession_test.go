package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// visits has clients come one after another, each with a connection of its own,
// until end.
func visits(t testing.TB, address string) (end func()) {
	enough := make(chan struct{})
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			for {
				select {
				case <-enough:
					return
				default:
				}
				if err := visit(address); !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(enough); done.Wait() })
}

func workersOf(text string, n int) string {
	return strings.Replace(text, "workers = 2", fmt.Sprint("workers = ", n), 1)
}

// heirOf is a server that takes the place of s, as far as that may be seen within
// one process.
func heirOf(t testing.TB, s *running, text string, loaded func() error) *running {
	t.Helper()
	legacy, err := s.Legacy()
	require.NoError(t, err)
	defer legacy.Close()
	return launchWith(t, text, nil, Estate{Legacy: legacy, Loaded: loaded})
}

// One server after another has the same sockets, with more workers, fewer, and on
// another engine, while clients come: none is refused, reset or left waiting, and
// all sockets are accepted from.
func TestSuccession(t *testing.T) {
	unhurried(t, patience) // nobody rests
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		end := visits(t, s.Addr())
		defer end()
		for _, workers := range []int{2, 5, 1, 3, 4} {
			next := heirOf(t, s, workersOf(text, workers), nil)
			assert.Equal(t, s.Addr(), next.Addr())
			s.Yield(next.Doors())
			next.Alone()
			assert.True(t, s.shutdown(patience))
			assert.Empty(t, s.log.lines("level=WARN"))
			s = next
			if engine == loop.IOUring {
				for i, w := range s.workers {
					assert.NotEmpty(t, s.doors.all()[0].of(i, len(s.workers)), w.index)
				}
				assert.GreaterOrEqual(t, len(s.doors.all()[0].listeners), workers)
			}
			for range 40 { // on each of the sockets, most probably
				require.NoError(t, visit(s.Addr()))
			}
		}
		end()
	})
}

// What was yielded can be taken back, and clients who came meanwhile are served.
func TestYieldAndResume(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		end := visits(t, s.Addr())
		defer end()
		for range 10 {
			s.Yield(s.Doors())
			waiting := s.dial()
			waiting.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			s.Resume()
			_, body := waiting.receive()
			assert.Equal(t, "hello", body)
		}
		s.Yield([]string{"nobody's"})
		end()
	})
}

// A process that is told not to begin leaves the other one alone.
func TestNotLoaded(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		legacy, err := s.Legacy()
		require.NoError(t, err)
		refused := errors.New("the other one goes on")
		_, err = Succeed(parse(t, text), new(logBook).logger(), Estate{
			Legacy: legacy,
			Loaded: func() error { return refused },
		})
		assert.ErrorIs(t, err, refused)
		legacy.Close()
		for range 20 {
			assert.NoError(t, visit(s.Addr()))
		}
	})
}

// A process that ends serves everybody whom the kernel has connected.
func TestShutdownResetsNobody(t *testing.T) {
	unhurried(t, patience) // nobody rests
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for range 3 {
			s := launch(t, looptest.StaticConfig(t, engine), nil)
			var clients sync.WaitGroup
			enough := make(chan struct{})
			for range 4 {
				clients.Go(func() {
					for {
						select {
						case <-enough:
							return
						default:
						}
						if !assert.NoError(t, visitOrRefused(s.Addr())) {
							return
						}
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
			assert.True(t, s.shutdown(patience))
			close(enough)
			clients.Wait()
		}
	})
}

func TestReady(t *testing.T) {
	s := launch(t, looptest.StaticConfig(t, loop.Netpoll), nil)
	assert.True(t, s.Ready())
	s.Unready()
	assert.False(t, s.Ready())
	assert.Equal(t, "hello", s.dial().get("/a"))
}

// Each worker has a share of the sockets, and each socket is somebody's.
func TestDoorOf(t *testing.T) {
	for sockets := 1; sockets < 9; sockets++ {
		for workers := 1; workers < 9; workers++ {
			d := &door{}
			for range sockets {
				d.listeners = append(d.listeners, new(loop.Listener))
			}
			served := make(map[*loop.Listener]int)
			for i := range workers {
				mine := d.of(i, workers)
				assert.NotEmpty(t, mine)
				for _, ln := range mine {
					served[ln]++
				}
			}
			assert.Len(t, served, sockets, "%d workers", workers)
		}
	}
}

// visit asks for /a on a connection of its own.
func visit(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(c)
}

// visitOrRefused is visit, but for who is not connected at all.
func visitOrRefused(address string) error {
	c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
	if err != nil {
		time.Sleep(time.Millisecond)
		return nil
	}
	defer c.Close()
	return ask(c)
}

func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
