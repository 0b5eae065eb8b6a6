package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// drain begins to end the server and returns when it has begun.
func (r *running) drain(within time.Duration) (ended chan bool) {
	r.t.Helper()
	ended = make(chan bool, 1)
	go func() { ended <- r.shutdown(within) }()
	for _, w := range r.workers {
		begun := false
		eventually(r.t, "drain", func() bool {
			answer := make(chan bool, 1)
			if !w.Post(func() { answer <- w.Draining() }) {
				return true // this worker has ended already
			}
			begun = <-answer
			return begun
		})
	}
	return ended
}

// unhurried gives clients of this test's servers more time to speak in a drain than
// others get: those who connect and then ask must not be late on a busy machine.
func unhurried(t testing.TB, quiet time.Duration) {
	t.Helper()
	usual := drainQuiet
	drainQuiet = quiet
	t.Cleanup(func() { drainQuiet = usual })
}

// slowOrigin answers in two halves: the second when it is released, at the end of
// the test at the latest. asked is told when the first has left.
func slowOrigin(t testing.TB, half string) (address string, asked chan struct{}, release func()) {
	asked = make(chan struct{}, 10)
	released := make(chan struct{})
	address = origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" { // not even a head before it is released
			asked <- struct{}{}
			<-released
		}
		w.Header().Set("Content-Length", fmt.Sprint(2*len(half)))
		_, _ = io.WriteString(w, half)
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).Flush()
			asked <- struct{}{}
			<-released
		}
		_, _ = io.WriteString(w, half)
	})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return address, asked, release
}

// Exchanges that have begun end in order while the server drains, whether their
// response has begun or not; what is idle ends at once.
func TestDrainFinishesInFlight(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		half := strings.Repeat("0123456789", 20_000)
		up, asked, release := slowOrigin(t, half)
		s := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		var idle, slow []*client
		for range 4 { // on both workers, most probably
			c := s.dial()
			assert.Equal(t, half+half, c.get("/"))
			idle = append(idle, c)
		}
		for _, path := range []string{"/slow", "/late", "/slow", "/late"} {
			c := s.dial()
			c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
			<-asked
			slow = append(slow, c)
		}
		ended := s.drain(patience)
		for _, c := range idle {
			c.ends()
		}
		release()
		for i, c := range slow {
			resp, body := c.receive()
			assert.Equal(t, 200, resp.StatusCode)
			assert.True(t, body == half+half, "%d bytes", len(body))
			if i%2 == 1 {
				assert.True(t, resp.Close, "a client that can still be told is told that this is the last response")
			}
			c.ends()
		}
		assert.True(t, <-ended)
		assert.Empty(t, s.log.lines("level=WARN"))
	})
}

// A file that is being downloaded, and a request whose body is on its way.
func TestDrainFinishesBodies(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		const size = 32 << 20
		text := looptest.StaticConfig(t, engine)
		_, root, _ := strings.Cut(text, "root = \"")
		root, _, _ = strings.Cut(root, "\"")
		require.NoError(t, os.WriteFile(filepath.Join(root, "large"), bytes.Repeat([]byte("x"), size), 0o644))
		files := launch(t, text, nil)
		download := files.dial()
		download.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err := download.in.Peek(1)
		require.NoError(t, err)
		filesEnded := files.drain(patience)

		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n, err)
		})
		proxy := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		upload := proxy.dial()
		upload.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50_000))
		eventually(t, "the upload to begin", func() bool {
			var dialled int64
			for _, w := range proxy.workers {
				dialled += w.Counters().Dialled.Load()
			}
			return dialled > 0
		})
		proxyEnded := proxy.drain(patience)
		time.Sleep(50 * time.Millisecond)
		upload.send(strings.Repeat("x", 50_000))
		_, body := upload.receive()
		assert.Equal(t, "100000 <nil>", body)
		upload.ends()
		assert.True(t, <-proxyEnded)

		resp, body := download.receive()
		assert.EqualValues(t, size, resp.ContentLength)
		assert.Len(t, body, size)
		download.ends()
		assert.True(t, <-filesEnded)
	})
}

// Who connects while the server drains is refused at once, and does not hang
// until the last exchange has ended.
func TestDrainRefuses(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up, asked, release := slowOrigin(t, "half")
		s := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		slow := s.dial()
		slow.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
		<-asked
		ended := s.drain(patience)
		eventually(t, "refusal", func() bool {
			c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		assert.Empty(t, ended)
		release()
		_, body := slow.receive()
		assert.Equal(t, "halfhalf", body)
		assert.True(t, <-ended)
	})
}

// What has not ended when the time is over is cut, visibly, and the server ends.
func TestDrainTimeout(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up, asked, release := slowOrigin(t, "half")
		defer release()
		s := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		var cut []*client
		for _, path := range []string{"/slow", "/late"} {
			c := s.dial()
			c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
			<-asked
			cut = append(cut, c)
		}
		silent := s.dial() // has never spoken
		ended := s.drain(100 * time.Millisecond)
		assert.False(t, <-ended)
		for _, c := range cut {
			rest, err := io.ReadAll(c.in)
			assert.ErrorContains(t, err, "reset")
			assert.NotContains(t, string(rest), "halfhalf")
		}
		_, err := io.ReadAll(silent.in)
		if err != nil {
			assert.ErrorContains(t, err, "reset")
		}
	})
}

// A connection that was accepted before the drain and speaks during it is
// answered, and told that this was it.
func TestDrainUnspoken(t *testing.T) {
	unhurried(t, patience)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		c := s.dial()
		eventually(t, "accept", func() bool {
			return s.workers[0].Counters().Open.Load()+s.workers[1].Counters().Open.Load() == 1
		})
		ended := s.drain(patience)
		c.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, body := c.receive()
		assert.Equal(t, "hello", body)
		assert.True(t, resp.Close)
		c.ends()
		assert.True(t, <-ended)
	})
}
