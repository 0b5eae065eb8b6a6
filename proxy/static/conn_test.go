package static

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/looptest"
)

// skipShort skips what takes seconds.
func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("go test -short")
	}
}

func TestHTTP10(t *testing.T) {
	sites(t, func(s *site) {
		s.write("small", []byte("hello"))
		s.write("large", looptest.Pattern(blindBytesMax+1))
		for name, size := range map[string]int{"small": 5, "large": blindBytesMax + 1} {
			c := s.dial()
			c.Send("GET /" + name + " HTTP/1.0\r\n\r\n")
			got := c.Answer("GET")
			assert.Equal(s, "HTTP/1.1 200 OK", got.Proto+" "+got.Status)
			assert.True(s, got.Close)
			assert.Len(s, got.Text, size)
			c.End()

			c = s.dial()
			for range 3 {
				c.Send("GET /" + name + " HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
				got = c.Answer("GET")
				assert.Equal(s, "keep-alive", got.Header.Get("Connection"))
				assert.Len(s, got.Text, size)
			}
			require.NoError(s, c.Close())
		}
	})
}

func TestConnectionClose(t *testing.T) {
	sites(t, func(s *site) {
		s.write("small", []byte("hello"))
		s.write("large", looptest.Pattern(blindBytesMax+1))
		for name, size := range map[string]int{"small": 5, "large": blindBytesMax + 1} {
			for _, line := range []string{"GET /", "HEAD /"} {
				c := s.dial()
				got := c.ask(line+name, "Connection: close")
				assert.Equal(s, 200, got.StatusCode)
				assert.True(s, got.Close)
				assert.EqualValues(s, size, got.ContentLength)
				c.End()
			}
		}
		c := s.dial()
		assert.True(s, c.ask("GET /none", "Connection: close").Close)
		c.End()
	})
}

// A hundred requests at once, and in pieces of a byte, are answered in their
// order; so are those among them that fail.
func TestPipelining(t *testing.T) {
	sites(t, func(s *site) {
		s.write("small", []byte("hello"))
		s.write("medium", looptest.Pattern(20_000))
		s.write("large", looptest.Pattern(blindBytesMax+1))
		targets := []string{"small", "medium", "none", "small", "%zz"}
		want := []int{5, 20_000, -1, 5, -1}
		var all strings.Builder
		for i := range 100 {
			all.WriteString("GET /" + targets[i%len(targets)] + " HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		all.WriteString("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		read := func(c *client) {
			for i := range 100 {
				got := c.Answer("GET")
				require.NoError(s, got.Err)
				if n := want[i%len(want)]; n >= 0 {
					assert.Len(s, got.Text, n)
				} else {
					assert.GreaterOrEqual(s, got.StatusCode, 400)
				}
			}
			assert.Len(s, c.Answer("GET").Text, blindBytesMax+1)
			c.End()
		}
		c := s.dial()
		c.Send(all.String())
		read(c)

		c = s.dial()
		require.NoError(s, c.SetNoDelay(true))
		sent := make(chan error, 1)
		go func() {
			for _, b := range []byte(all.String()) {
				if _, err := c.Write([]byte{b}); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		read(c)
		require.NoError(s, <-sent)
	})
}

// A client that has sent the beginning of its next request already gets its
// answer now, not when the rest has come.
func TestPartOfNextRequest(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		c := s.dial()
		for _, part := range []string{"\r\n", "G", "GET /a HTTP/1.1\r\nHost: a\r\n"} {
			c.Send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + part)
			assert.Equal(s, "hello", c.Answer("GET").Text)
			rest := strings.TrimPrefix("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", strings.TrimPrefix(part, "\r\n"))
			c.Send(rest)
			assert.Equal(s, "hello", c.Answer("GET").Text)
		}
	})
}

// A file that comes with a request body nobody wants: a body that is here is
// skipped, one that is on its way ends the connection, without a reset that
// could overtake the answer.
func TestRequestBody(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		c := s.dial()
		for _, line := range []string{"GET /a", "POST /a", "GET /none"} {
			c.Send(line + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			first := c.Answer("GET")
			assert.NoError(s, first.Err)
			assert.False(s, first.Close)
			assert.Equal(s, "hello", c.Answer("GET").Text, "the body is not taken for a request")
		}
		for _, body := range []string{
			"Content-Length: 10\r\n\r\nabc", "Content-Length: 1000000\r\n\r\n" + strings.Repeat("x", 900_000),
			"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
		} {
			c := s.dial()
			c.Send("GET /a HTTP/1.1\r\nHost: a\r\n" + body)
			got := c.Answer("GET")
			assert.Equal(s, 200, got.StatusCode)
			assert.Equal(s, "hello", got.Text)
			assert.True(s, got.Close)
			c.End()
		}
		got := s.get("/a", "Content-Length: 1", "Expect: tea")
		assert.Equal(s, 417, got.StatusCode)
	})
}

// A head that does not come to its end is answered, also where the worker has
// not carried a whole exchange before.
func TestHeadTooSlow(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		for range 2 {
			c := s.dial()
			c.Send("GET /a HTTP/1.1\r\nHo")
			got := c.Answer("GET")
			assert.Equal(s, 408, got.StatusCode)
			assert.True(s, got.Close)
			c.End()
			assert.Equal(s, 200, s.get("/a").StatusCode)
		}
		assert.Zero(s, s.Loop.Counters().Panics.Load())
	}, func(set *settings) { set.client.Header = 50 * time.Millisecond })
}

// 100 MB arrive as they are, through a socket that is full most of the time.
func TestDownload(t *testing.T) {
	skipShort(t)
	const size = 100 << 20
	file := filepath.Join(t.TempDir(), "large")
	out, err := os.Create(file)
	require.NoError(t, err)
	want := sha256.New()
	_, err = io.CopyN(io.MultiWriter(out, want), rand.NewChaCha8([32]byte{2}), size)
	require.NoError(t, err)
	require.NoError(t, out.Close())
	sites(t, func(s *site) {
		require.NoError(s, os.Link(file, filepath.Join(s.root, "large")))
		c := s.dial()
		require.NoError(s, c.SetDeadline(time.Now().Add(5*patience)))
		c.Send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n")
		head := c.Head()
		assert.Contains(s, head, "Content-Length: 104857600\r\n")
		got := sha256.New()
		n, err := io.CopyN(got, c.In, size)
		require.NoError(s, err, "after %d bytes", n)
		assert.Equal(s, want.Sum(nil), got.Sum(nil))
		assert.Equal(s, 404, c.Answer("GET").StatusCode, "the connection goes on")
	})
}

// What was done to a file is seen about a second later, in whichever way it was
// done.
func TestFileChanges(t *testing.T) {
	skipShort(t)
	sites(t, func(s *site) {
		for _, name := range []string{"written", "grown", "emptied", "replaced", "removed", "directory"} {
			s.write(name, []byte("before"))
		}
		path := func(name string) string { return filepath.Join(s.root, name) }
		c := s.dial()
		is := func(name string, status int, body string) bool {
			got := c.ask("GET /" + name)
			return got.StatusCode == status && (status != 200 || got.Text == body)
		}
		for _, name := range []string{"written", "grown", "emptied", "replaced", "removed", "directory"} {
			require.True(s, is(name, 200, "before"), name)
		}
		require.True(s, is("created", 404, ""))
		s.write("written", []byte("AFTER."))
		s.write("grown", bytes.Repeat([]byte("more"), entryBytesMax))
		s.write("emptied", nil)
		s.write("new", []byte("another"))
		require.NoError(s, os.Rename(path("new"), path("replaced")))
		require.NoError(s, os.Remove(path("removed")))
		require.NoError(s, os.Remove(path("directory")))
		require.NoError(s, os.Mkdir(path("directory"), 0o755))
		s.write("created", []byte("now"))
		s.Eventually("a written file", func() bool { return is("written", 200, "AFTER.") })
		s.Eventually("a grown file", func() bool { return is("grown", 200, strings.Repeat("more", entryBytesMax)) })
		s.Eventually("an emptied file", func() bool { return is("emptied", 200, "") })
		s.Eventually("a replaced file", func() bool { return is("replaced", 200, "another") })
		s.Eventually("a removed file", func() bool { return is("removed", 404, "") })
		s.Eventually("a directory in its place", func() bool { return is("directory", 301, "") })
		assert.True(s, is("created", 200, "now"), "what was not there is not remembered")
		s.Post(func() { s.handler.cache.check(s) })
	})
}

// No file is looked at more than once a second: what is served in between is
// what was there.
func TestCachedFileIsNotOpened(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		c := s.dial()
		c.ask("GET /a")
		require.NoError(s, os.Remove(filepath.Join(s.root, "a")))
		s.Post(func() { s.handler.cache.get("a").checked = s.Loop.Now().After(time.Hour) })
		assert.Equal(s, "hello", c.ask("GET /a").Text)
		s.Post(func() { s.handler.cache.get("a").checked = 1 })
		assert.Equal(s, 404, c.ask("GET /a").StatusCode)
	})
}

func TestSymlinks(t *testing.T) {
	sites(t, func(s *site) {
		outside := s.TempDir()
		require.NoError(s, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
		s.write("real/file", []byte("fine"))
		for link, to := range map[string]string{
			"inside": "real/file", "inner": "real", "dangling": "none", "circle": "circle",
			"absolute": filepath.Join(outside, "secret"), "out": outside, "climbing": "../../../../../../../../../../etc/passwd",
		} {
			require.NoError(s, os.Symlink(to, filepath.Join(s.root, link)))
		}
		c := s.dial()
		for target, status := range map[string]int{
			"/inside": 200, "/inner/file": 200, "/inner": 301, "/dangling": 404, "/circle": 404,
			"/absolute": 404, "/out/secret": 404, "/out": 404, "/out/": 404, "/climbing": 404,
		} {
			got := c.ask("GET " + target)
			assert.Equal(s, status, got.StatusCode, target)
			assert.NotContains(s, got.Text, "secret")
			assert.NotContains(s, got.Text, "root:")
		}
	})
}

// What is no file is not there, and opening it holds nobody up.
func TestNoRegularFile(t *testing.T) {
	sites(t, func(s *site) {
		require.NoError(s, syscall.Mkfifo(filepath.Join(s.root, "pipe"), 0o644))
		assert.Equal(s, 404, s.get("/pipe").StatusCode)
		assert.Equal(s, 404, s.get("/pipe/").StatusCode)
	})
}

// A client that never reads is cut when the write time-out has passed, with a
// cached file and with one from the disk, and what it can still read is visibly
// not all.
func TestClientNeverReads(t *testing.T) {
	const size = 64 << 20
	sites(t, func(s *site) {
		s.write("small", looptest.Pattern(entryBytesMax))
		s.write("large", nil)
		require.NoError(s, os.Truncate(filepath.Join(s.root, "large"), size))
		for _, requests := range []string{
			"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
			strings.Repeat("GET /small HTTP/1.1\r\nHost: a\r\n\r\n", size/entryBytesMax),
		} {
			c := s.dial()
			c.Send(requests)
			s.Eventually("accept", func() bool { return s.Loop.Counters().Open.Load() == 1 })
			s.Eventually("the time-out", func() bool { return s.Loop.Counters().Open.Load() == 0 })
			n, _ := io.Copy(io.Discard, c.In)
			assert.Less(s, n, int64(size), "all of it was sent although nobody read")
		}
	}, func(set *settings) { set.client.Write = 200 * time.Millisecond })
}

// A file that becomes shorter while it is sent ends in a reset: the client must
// not wait for the rest, nor take the next response for it.
func TestTruncatedWhileSent(t *testing.T) {
	const size = 64 << 20
	sites(t, func(s *site) {
		s.write("large", nil)
		file := filepath.Join(s.root, "large")
		require.NoError(s, os.Truncate(file, size))
		c := s.dial()
		require.NoError(s, c.SetReadBuffer(64<<10))
		c.Send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Head()
		require.NoError(s, os.Truncate(file, 1<<20))
		n, err := io.Copy(io.Discard, c.In)
		assert.ErrorIs(s, err, syscall.ECONNRESET)
		assert.Less(s, n, int64(size))
	})
}

// A client that leaves in the middle costs nobody anything.
func TestClientLeaves(t *testing.T) {
	sites(t, func(s *site) {
		s.write("large", nil)
		require.NoError(s, os.Truncate(filepath.Join(s.root, "large"), 64<<20))
		for i := range 10 {
			c := s.dial()
			c.Send(strings.Repeat("GET /large HTTP/1.1\r\nHost: a\r\n\r\n", 3))
			c.Head()
			if i%2 == 0 {
				require.NoError(s, c.SetLinger(0))
			}
			require.NoError(s, c.Close())
		}
		s.Eventually("all to close", func() bool { return s.Loop.Counters().Open.Load() == 0 })
		assert.Zero(s, s.Loop.Counters().Panics.Load())
	})
}

// Many clients ask for files that are not in memory yet, some of which are
// removed meanwhile.
func TestManyClients(t *testing.T) {
	sites(t, func(s *site) {
		const clients, each = 20, 30
		for i := range each {
			s.write(strings.Repeat("x", i+1), looptest.Pattern(i*500))
		}
		failed := make(chan string, clients*each)
		done := make(chan struct{})
		for n := range clients {
			c := s.dial()
			go func() {
				defer func() { done <- struct{}{} }()
				for i := range each {
					i = (i + n) % each
					name := strings.Repeat("x", i+1)
					if _, err := io.WriteString(c, "GET /"+name+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
						failed <- err.Error()
						return
					}
					resp, err := http.ReadResponse(c.In, nil)
					if err != nil {
						failed <- err.Error()
						return
					}
					if body, err := io.ReadAll(resp.Body); !bytes.Equal(body, looptest.Pattern(i*500)) {
						failed <- fmt.Sprint(resp.Status, err)
					}
				}
			}()
		}
		for range clients {
			<-done
		}
		assert.Empty(s, failed)
		s.Post(func() { s.handler.cache.check(s) })
	}, func(set *settings) { set.static.CacheBytes = 100_000 })
}

// A handler above this one may panic: the connection ends with a reset, and the
// worker serves the others.
func TestPanicAbove(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		other := s.dial()
		assert.Equal(s, 200, other.ask("GET /a").StatusCode)
		c := s.dial()
		c.Send("GET /boom HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err := io.ReadAll(c)
		var reset *net.OpError
		require.ErrorAs(s, err, &reset)
		assert.ErrorIs(s, err, syscall.ECONNRESET)
		assert.Equal(s, 200, other.ask("GET /a").StatusCode)
		assert.EqualValues(s, 1, s.Loop.Counters().Panics.Load())
	}, func(set *settings) {
		set.wrap = func(h exchange.Handler) exchange.Handler {
			return handlerFunc(func(x *exchange.Exchange) {
				if string(x.Request.Path) == "/boom" {
					panic("handler is broken")
				}
				h.Handle(x)
			})
		}
	})
}

type handlerFunc func(*exchange.Exchange)

func (f handlerFunc) Handle(x *exchange.Exchange) { f(x) }
