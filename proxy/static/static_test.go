package static

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// patience bounds what has to happen; nothing here is measured.
const patience = 20 * time.Second

// settings of a site that tests change.
type settings struct {
	static Config
	client exchange.Config
	wrap   func(exchange.Handler) exchange.Handler
}

// site is a directory that one worker serves.
type site struct {
	*looptest.Env
	root    string
	address string
	stats   *stats.Stats
	handler *Handler
}

// newSite serves an empty directory. Tests write their files into it.
func newSite(t testing.TB, engine loop.Engine, change ...func(*settings)) *site {
	t.Helper()
	s := &site{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), root: t.TempDir(), stats: new(stats.Stats)}
	dir, err := loop.OpenDir(s.root)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dir.Close()) })
	set := settings{
		static: Config{Dir: dir, Index: "index.html", CacheBytes: 64 << 20, Precompressed: true},
		client: exchange.Config{Header: patience, Body: patience, Write: patience, Idle: patience, Stats: s.stats},
		wrap:   func(h exchange.Handler) exchange.Handler { return h },
	}
	for _, f := range change {
		f(&set)
	}
	s.handler = New(set.static)
	s.address = s.Listen(exchange.NewServer(set.client, set.wrap(s.handler)))
	return s
}

// sites runs a test on both engines.
func sites(t *testing.T, test func(s *site), change ...func(*settings)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) { test(newSite(t, engine, change...)) })
}

func uncached(set *settings) { set.static.CacheBytes = 0 }

// write puts a file into the site.
func (s *site) write(name string, body []byte) {
	s.Helper()
	file := filepath.Join(s.root, name)
	require.NoError(s, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(s, os.WriteFile(file, body, 0o644))
}

// client is a connection to the site.
type client struct {
	*looptest.Peer
	t testing.TB
}

func (s *site) dial() *client {
	s.Helper()
	c := &client{s.Client(s.address), s}
	require.NoError(s, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// ask sends one request with the method and target in line, and more fields.
func (c *client) ask(line string, fields ...string) *looptest.Response {
	c.t.Helper()
	method, _, _ := strings.Cut(line, " ")
	c.Send(line + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n")
	got := c.Answer(method)
	require.NoError(c.t, got.Err)
	return got
}

// get is one GET on a connection of its own.
func (s *site) get(target string, fields ...string) *looptest.Response {
	s.Helper()
	c := s.dial()
	defer c.Close()
	return c.ask("GET "+target, fields...)
}

func TestGet(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a.html", []byte("<p>hello"))
		c := s.dial()
		for range 3 { // from the disk, then from the cache
			got := c.ask("GET /a.html")
			assert.Equal(s, "200 OK", got.Status)
			assert.Equal(s, "<p>hello", got.Text)
			assert.EqualValues(s, 8, got.ContentLength)
			assert.Equal(s, "text/html; charset=utf-8", got.Header.Get("Content-Type"))
			assert.Equal(s, "atlas", got.Header.Get("Server"))
			assert.NotEmpty(s, got.Header.Get("Etag"))
			date, err := http.ParseTime(got.Header.Get("Date"))
			assert.NoError(s, err)
			assert.WithinDuration(s, time.Now(), date, time.Minute)
			changed, err := http.ParseTime(got.Header.Get("Last-Modified"))
			assert.NoError(s, err)
			assert.WithinDuration(s, time.Now(), changed, time.Minute)
			assert.Empty(s, got.Header.Get("Connection"))
			assert.Equal(s, "bytes", got.Header.Get("Accept-Ranges"))
			assert.Len(s, got.Header, 7)
		}
		assert.EqualValues(s, 3, s.stats.Requests.Load())
		assert.EqualValues(s, 3, s.stats.Responses[1].Load())
		hits, misses := s.stats.CacheHits.Load(), s.stats.CacheMisses.Load()
		assert.EqualValues(s, 3, hits+misses)
		assert.Positive(s, misses)
		assert.Positive(s, s.stats.CacheBytes.Load())
	})
}

func TestHead(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range map[string]int{"small": 10, "empty": 0, "large": blindBytesMax + 1} {
			s.write(name, looptest.Pattern(size))
			c := s.dial()
			for range 2 {
				head, get := c.ask("HEAD /"+name), c.ask("GET /"+name)
				assert.Equal(s, get.Status, head.Status)
				head.Header.Del("Date")
				get.Header.Del("Date")
				assert.Equal(s, get.Header, head.Header)
				assert.EqualValues(s, size, head.ContentLength)
				assert.Empty(s, head.Text)
				assert.Len(s, get.Text, size)
			}
			require.NoError(s, c.Close())
		}
	})
}

// Sizes around every bound there is: what fits one segment, what is copied, what
// is cached, what is sent from the disk; and each of them without a cache.
func TestSizes(t *testing.T) {
	sizes := []int{0, 1, 4094, 4095, 4096, 4097, 4098, 4099, 4100, 64 << 10, entryBytesMax, entryBytesMax + 1, 1 << 20, 1<<20 + 1}
	test := func(s *site) {
		body := string(looptest.Pattern(1<<20 + 1))
		names := make([]string, len(sizes))
		for i, size := range sizes {
			names[i] = "/" + strings.Repeat("x", i+1)
			s.write(names[i], []byte(body[:size]))
		}
		c := s.dial()
		for range 3 {
			for i, size := range sizes {
				got := c.ask("GET " + names[i])
				assert.Equal(s, 200, got.StatusCode)
				assert.EqualValues(s, size, got.ContentLength)
				assert.True(s, body[:size] == got.Text, "body of %d bytes", size)
			}
		}
	}
	t.Run("cache=on", func(t *testing.T) { sites(t, test) })
	t.Run("cache=off", func(t *testing.T) { sites(t, test, uncached) })
	t.Run("cache=small", func(t *testing.T) {
		sites(t, test, func(set *settings) { set.static.CacheBytes = 20_000 })
	})
}

func TestCacheIsBounded(t *testing.T) {
	sites(t, func(s *site) {
		c := s.dial()
		for i := range 40 {
			name := strings.Repeat("x", i+1)
			s.write(name, looptest.Pattern(1000+i))
			assert.Len(s, c.ask("GET /"+name).Text, 1000+i)
		}
		s.Post(func() {
			s.handler.cache.check(s)
			assert.Positive(s, s.handler.cache.bytes)
		})
	}, func(set *settings) { set.static.CacheBytes = 10_000 })
}

func TestNoFile(t *testing.T) {
	sites(t, func(s *site) {
		s.write("dir/file", []byte("x"))
		s.write(".env", []byte("secret"))
		s.write("dir/.git/config", []byte("secret"))
		c := s.dial()
		for _, target := range []string{
			"/none", "/dir/none", "/dir/", "/", "/dir/file/", "/dir/file/below", "/none/", "/DIR/file", "/dir/file%20",
			"/.env", "/dir/.git/config", "/dir/.git/", "/dir/.git", "/%2eenv", "/x/../.env",
			"/" + strings.Repeat("n", 300), "/" + strings.Repeat("n/", 3000),
		} {
			got := c.ask("GET " + target)
			assert.Equal(s, 404, got.StatusCode, target)
			assert.Equal(s, "text/plain; charset=utf-8", got.Header.Get("Content-Type"))
			assert.Equal(s, "404 Not Found: there is no such file\n", got.Text, target)
			head := c.ask("HEAD " + target)
			assert.Equal(s, got.Status, head.Status)
			assert.Equal(s, got.ContentLength, head.ContentLength)
		}
		assert.Equal(s, 200, c.ask("GET /dir/file").StatusCode, "the connection goes on")
	})
}

func TestBadPath(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("x"))
		c := s.dial()
		for target, why := range map[string]string{
			"/../etc/passwd": "out of the root", "/%2e%2e/a": "out of the root", "/a/..%2f..%2fb": "out of the root",
			"/a%00": "NUL", "/a%5cb": "backslash", "/%zz": "hex digits", "/%": "ends inside",
		} {
			got := c.ask("GET " + target)
			assert.Equal(s, 400, got.StatusCode, target)
			assert.Contains(s, got.Text, why)
		}
		assert.Equal(s, 200, c.ask("GET /a").StatusCode, "the connection goes on")
	})
}

func TestWellKnown(t *testing.T) {
	sites(t, func(s *site) {
		s.write(".well-known/acme-challenge/token", []byte("proof"))
		s.write(".well-known/.htpasswd", []byte("secret"))
		assert.Equal(s, "proof", s.get("/.well-known/acme-challenge/token").Text)
		assert.Equal(s, 404, s.get("/.well-known/.htpasswd").StatusCode)
	})
}

func TestMethods(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("x"))
		c := s.dial()
		for _, line := range []string{
			"POST /a", "PUT /a", "DELETE /a", "PATCH /a", "OPTIONS /a", "OPTIONS *", "TRACE /a", "BREW /a", "get /a", "POST /none",
		} {
			got := c.ask(line)
			assert.Equal(s, 405, got.StatusCode, line)
			assert.Equal(s, "GET, HEAD", got.Header.Get("Allow"))
		}
		assert.Equal(s, 200, c.ask("GET /a").StatusCode, "the connection goes on")
	})
}

func TestIndex(t *testing.T) {
	sites(t, func(s *site) {
		s.write("start.htm", []byte("top"))
		s.write("a/b/start.htm", []byte("below"))
		c := s.dial()
		for range 2 {
			for target, want := range map[string]string{
				"/": "top", "//": "top", "/a/..": "top", "http://a": "top", "http://a?q": "top", "/a/b/": "below", "/a/b/.": "below",
				"/a/b/start.htm": "below", "/a/b/?q=1": "below",
			} {
				got := c.ask("GET " + target)
				assert.Equal(s, 200, got.StatusCode, target)
				assert.Equal(s, want, got.Text, target)
			}
		}
	}, func(set *settings) { set.static.Index = "start.htm" })
}

// A directory without its slash is redirected to within this server, whatever
// the path looks like: Location never begins with two slashes, which would name
// another host.
func TestRedirect(t *testing.T) {
	sites(t, func(s *site) {
		for _, dir := range []string{"dir", "a/b c/\u00e4", "evil.com", "evil.com/up"} {
			require.NoError(s, os.MkdirAll(filepath.Join(s.root, dir), 0o755))
		}
		c := s.dial()
		for target, want := range map[string]string{
			"/dir":                  "/dir/",
			"/dir?a=b&c=/d":         "/dir/?a=b&c=/d",
			"/dir?":                 "/dir/?",
			"/x/../dir":             "/dir/",
			"/a/b%20c/%C3%A4":       "/a/b%20c/%C3%A4/",
			"//evil.com":            "/evil.com/",
			"//evil.com/up":         "/evil.com/up/",
			"///evil.com?x":         "/evil.com/?x",
			"/%2f%2fevil.com":       "/evil.com/",
			"/.//evil.com":          "/evil.com/",
			"http://evil.com//dir":  "/dir/",
			"http://a//evil.com/up": "/evil.com/up/",
		} {
			host := "a"
			if strings.HasPrefix(target, "http://evil") {
				host = "evil.com"
			}
			c.Send("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			got := c.Answer("GET")
			assert.Equal(s, 301, got.StatusCode, target)
			assert.Equal(s, want, got.Header.Get("Location"), target)
		}
	})
}

// An index that is a directory is no reason to redirect: for the root the
// Location would be "//", for others it would lead to itself for ever.
func TestIndexIsDirectory(t *testing.T) {
	sites(t, func(s *site) {
		require.NoError(s, os.MkdirAll(filepath.Join(s.root, "a/index.html"), 0o755))
		require.NoError(s, os.MkdirAll(filepath.Join(s.root, "index.html"), 0o755))
		c := s.dial()
		for _, target := range []string{"/", "/a/", "/index.html/", "/a/index.html/"} {
			assert.Equal(s, 404, c.ask("GET "+target).StatusCode, target)
		}
		got := c.ask("GET /a/index.html")
		assert.Equal(s, 301, got.StatusCode)
		assert.Equal(s, "/a/index.html/", got.Header.Get("Location"))
	})
}

func TestConditional(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range map[string]int{"small": 10, "large": blindBytesMax + 1} {
			s.write(name, looptest.Pattern(size))
			c := s.dial()
			first := c.ask("GET /" + name)
			etag, date := first.Header.Get("Etag"), first.Header.Get("Last-Modified")
			for _, field := range []string{"If-None-Match: " + etag, "If-None-Match: *", "If-Modified-Since: " + date} {
				for _, method := range []string{"GET ", "HEAD "} {
					got := c.ask(method+"/"+name, field)
					assert.Equal(s, 304, got.StatusCode, field)
					assert.Empty(s, got.Text)
					assert.Equal(s, etag, got.Header.Get("Etag"))
					assert.NotEmpty(s, got.Header.Get("Date"))
					assert.Empty(s, got.Header.Get("Content-Length"))
				}
			}
			for _, field := range []string{
				`If-None-Match: "other"`, "If-Modified-Since: Mon, 10 Jun 2024 10:00:00 GMT", "Range: lines=0-1",
			} {
				got := c.ask("GET /"+name, field)
				assert.Equal(s, 200, got.StatusCode, field)
				assert.Len(s, got.Text, size)
			}
			require.NoError(s, c.Close())
		}
	})
}

// A conditional request whose file has to be looked at again first: its head is
// given back before that.
func TestConditionalAfterWait(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("x"))
		etag := s.get("/a").Header.Get("Etag")
		s.Post(func() { s.handler.cache.get("a").checked = 1 })
		assert.Equal(s, 304, s.get("/a", "If-None-Match: "+etag).StatusCode)
		s.Post(func() { s.handler.cache.drop("a") })
		assert.Equal(s, 304, s.get("/a", "If-None-Match: "+etag).StatusCode)
		s.Post(func() { s.handler.cache.get("a").checked = 1 })
		assert.Equal(s, 200, s.get("/a", `If-None-Match: "b"`).StatusCode)
	})
}
