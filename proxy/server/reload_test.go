package server

import (
	"context"
	"fmt"
	"io"
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

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// use has the server reload a configuration that is given as text.
func (r *running) use(text string) error {
	r.t.Helper()
	reading, err := config.Read("atlas.toml", []byte(text), nil)
	require.NoError(r.t, err)
	if !strings.Contains(text, "[access_log]") {
		reading.Config.AccessLog.Format = "off" // as launch does
	}
	return r.reloader.ask(func(ctx context.Context) error {
		return r.reloader.reload(ctx, reading.Config, reading, "", "test")
	})
}

// replaced is text with one thing replaced, which has to be there.
func replaced(t testing.TB, text, old, new string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.Replace(text, old, new, 1)
}

// folder is a directory with one file "a".
func folder(t testing.TB, content string) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "a"), []byte(content), 0o644))
	return root
}

// A connection that is open has the new configuration from its next request.
func TestReloadStatic(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		first := looptest.StaticConfig(t, engine)
		s := launch(t, first, nil)
		address := s.Addr()
		c := s.dial()
		assert.Equal(t, "hello", c.get("/a"))
		other := folder(t, "other")
		require.NoError(t, os.WriteFile(filepath.Join(other, "start.html"), []byte("start"), 0o644))
		require.NoError(t, s.use(replaced(t, first, "root = ", "#")+fmt.Sprintf(
			"[static_files]\nroot = %q\nindex = \"start.html\"\n[limits]\nheader_bytes = 1024\n", other)))
		assert.Equal(t, address, s.Addr(), "port 0 stays where it is")
		assert.Equal(t, "other", c.get("/a"))
		assert.Equal(t, "start", c.get("/"))
		c.send("GET /a HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2000) + "\r\n\r\n")
		resp, _ := c.receive()
		assert.Equal(t, 431, resp.StatusCode, "the limit is the new one")
		assert.Equal(t, "other", s.dial().get("/a"))
		status := s.Reloads()
		assert.EqualValues(t, 1, status.Applied)
		assert.EqualValues(t, 0, status.Failed)
		require.Len(t, status.Changes, 3)
		line := s.log.lines("configuration reloaded")
		require.Len(t, line, 1)
		assert.Contains(t, line[0], `static_files.index: \"index.html\" -> \"start.html\" [live]`)
	})
}

// Requests that were sent at once are answered, each by one configuration or the
// other, and none is lost.
func TestReloadPipelined(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		other := replaced(t, text, "root = ", "#") + fmt.Sprintf("[static_files]\nroot = %q\n", folder(t, "other"))
		c := s.dial()
		for i := range 20 {
			c.send(strings.Repeat("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 50))
			require.NoError(t, s.use([]string{other, text}[i%2]))
			for range 50 {
				_, body := c.receive()
				assert.Contains(t, []string{"hello", "other"}, body)
			}
			assert.Equal(t, []string{"other", "hello"}[i%2], c.get("/a"))
		}
	})
}

// What is in flight ends as it has begun, and holds what it needs until then; a
// tunnel goes on whatever happens.
func TestReloadInFlight(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		release := make(chan struct{})
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				conn, in, err := http.NewResponseController(w).Hijack()
				if assert.NoError(t, err) {
					_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
					_, _ = io.Copy(struct{ io.Writer }{conn}, in)
					_ = conn.Close()
				}
				return
			}
			_, _ = io.WriteString(w, "begun ")
			_ = http.NewResponseController(w).Flush()
			<-release
			_, _ = io.WriteString(w, "ended")
		})
		other := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
		s := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		slow, tunnel := s.dial(), s.dial()
		slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(slow.in, nil)
		require.NoError(t, err)
		tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		switched, err := http.ReadResponse(tunnel.in, nil)
		require.NoError(t, err)
		require.Equal(t, 101, switched.StatusCode)
		echoes := func(text string) {
			tunnel.send(text)
			got := make([]byte, len(text))
			_, err := io.ReadFull(tunnel.in, got)
			require.NoError(t, err)
			assert.Equal(t, text, string(got))
		}
		echoes("before")
		require.NoError(t, s.use(looptest.ProxyConfig(engine, []string{other})))
		require.NoError(t, s.use(looptest.StaticConfig(t, engine)))
		require.NoError(t, s.use(looptest.ProxyConfig(engine, []string{other})))
		echoes("behind")
		assert.Equal(t, "other", s.dial().get("/"))
		close(release)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "begun ended", string(body))
		assert.Equal(t, "other", slow.get("/"), "the next request of the same connection")
		echoes("and after")
	})
}

// A configuration that cannot be applied changes nothing.
func TestReloadRefused(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		k.pair("a", "a.test")
		k.pair("b", "b.test")
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		c := s.dial()
		assert.Equal(t, "hello", c.get("/a"))
		pem := func(name string) string { return filepath.Join(k.dir, name) }
		tls := func(cert, key, more string) string {
			return text + fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q\n%s", pem(cert), pem(key), more)
		}
		engines := map[loop.Engine]string{loop.IOUring: "netpoll", loop.Netpoll: "io_uring"}
		before := descriptors()
		for i, row := range []struct{ name, text, want string }{
			{"port in use", replaced(t, text, "port = 0", "port = "+port), "in use by another program"},
			{"no root", replaced(t, text, "root = ", "root = \"/nowhere\" #"), "static_files.root: open /nowhere"},
			{"certificate mismatch", tls("a.pem", "b.key", ""), "private key does not match"},
			{"no client_ca", tls("a.pem", "a.key", "client_ca = \"/nowhere\"\n"), "client_ca"},
			{"workers", replaced(t, text, "workers = 2", "workers = 3"), "needs an upgrade: listen.workers: 2 -> 3"},
			{"engine", replaced(t, text, string(engine), engines[engine]), "needs an upgrade: listen.engine"},
			{"pin", replaced(t, text, "pin = false", "pin = true"), "needs an upgrade: listen.pin: false -> true"},
			{"mode", replaced(t, looptest.ProxyConfig(engine, []string{"127.0.0.1:1"}), "workers", "mode = \"tcp\"\nworkers"),
				`needs an upgrade: listen.mode: "static" -> "tcp"`},
		} {
			t.Run(row.name, func(t *testing.T) {
				assert.ErrorContains(t, s.use(row.text), row.want)
				assert.Equal(t, "hello", c.get("/a"))
				another := s.dial()
				assert.Equal(t, "hello", another.get("/a"))
				require.NoError(t, another.Close())
				status := s.Reloads()
				assert.EqualValues(t, i+1, status.Failed)
				require.Len(t, status.Errors, 1)
				assert.Contains(t, status.Errors[0], row.want)
				assert.Len(t, s.log.lines("configuration not reloaded"), i+1)
			})
		}
		eventually(t, "what was opened to be closed", func() bool { return descriptors() <= before })
		require.NoError(t, s.use(text))
		assert.Empty(t, s.Reloads().Errors)
	})
}

// TLS comes and goes for connections that begin; the others go on as they are.
func TestReloadTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
		})
		plain := looptest.ProxyConfig(engine, []string{up})
		secure := plain + "\n[listen.tls]\n" + k.pair("a", "a.test")
		s := launch(t, plain, nil)
		open := s.dial()
		assert.Equal(t, "http", open.get("/"))
		require.NoError(t, s.use(secure))
		assert.Equal(t, "http", open.get("/"), "it was plain, and is")
		over := k.client("a.test")
		proto, _ := fetch(t, over, "https://"+s.Addr()+"/")
		assert.Equal(t, "https", proto)
		require.NoError(t, s.use(plain))
		proto, _ = fetch(t, over, "https://"+s.Addr()+"/")
		assert.Equal(t, "https", proto, "it was encrypted, and is")
		assert.Equal(t, "http", s.dial().get("/"))
		assert.Equal(t, "http", open.get("/"))
	})
}

// Another address is listened on, the old one is closed, and nobody is reset.
func TestReloadAddress(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		first := s.Addr()
		open := s.dial()
		assert.Equal(t, "hello", open.get("/a"))
		unspoken := s.dial()
		other := replaced(t, text, "127.0.0.1", "127.0.0.2")
		require.NoError(t, s.use(other))
		assert.NotEqual(t, first, s.Addr())
		assert.Equal(t, "hello", s.dial().get("/a"))
		assert.Equal(t, "hello", open.get("/a"))
		assert.Equal(t, "hello", unspoken.get("/a"))
		eventually(t, "the old address to be closed", func() bool {
			c, err := net.DialTimeout("tcp", first, 5*time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err != nil && strings.Contains(err.Error(), "refused")
		})
		require.NoError(t, s.use(text), "and back")
		assert.Equal(t, "hello", s.dial().get("/a"))
		assert.Equal(t, "hello", open.get("/a"))
		require.NoError(t, s.use(other), "while that one is closing")
		assert.Equal(t, "hello", s.dial().get("/a"))
	})
}

// follow has the server follow a file, with what it was started with in it.
func (r *running) follow(file string) {
	r.t.Helper()
	r.now.Load().config.File = file // nobody else looks yet
	require.NoError(r.t, r.Follow(func(text []byte) (*config.Reading, error) {
		reading, err := config.Read(file, text, nil)
		if err == nil && reading.Config.AccessLog.Path == "-" {
			reading.Config.AccessLog.Format = "off" // as launch does
		}
		return reading, err
	}, nil))
}

// A pipe in the place of a file, which nobody writes to, is told, and holds up neither
// another reload nor the end.
func TestReloadPipe(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		folder := t.TempDir()
		file, pipe := filepath.Join(folder, "atlas.toml"), filepath.Join(folder, "pipe")
		require.NoError(t, syscall.Mkfifo(pipe, 0o600))
		text := looptest.StaticConfig(t, engine)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		s := launch(t, text, nil)
		s.follow(file)
		require.NoError(t, os.Symlink(pipe, file+".new"))
		require.NoError(t, os.Rename(file+".new", file))
		require.ErrorContains(t, s.Reload("test"), ": no regular file")
		cert := filepath.Join(folder, "cert")
		require.NoError(t, os.WriteFile(cert, nil, 0o600))
		secure := fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q\n", cert, pipe)
		require.NoError(t, os.WriteFile(file+".new", []byte(text+secure), 0o644))
		require.NoError(t, os.Rename(file+".new", file))
		require.ErrorContains(t, s.Reload("test"), "listen.tls.key: read "+pipe+": no regular file")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		require.NoError(t, s.Reload("test"))
		assert.Equal(t, "hello", s.dial().get("/a"))
	})
}

// The file is followed, however it is replaced, and what is wrong in it is told with
// its place.
func TestReloadFile(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		file := filepath.Join(t.TempDir(), "atlas.toml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		s := launch(t, text, nil)
		s.follow(file)
		c := s.dial()
		assert.Equal(t, "hello", c.get("/a"))
		require.NoError(t, os.WriteFile(file, []byte(text+"[limits]\nheader_bytes = 3\nnonsense = 1\n"), 0o644))
		eventually(t, "the complaint", func() bool { return len(s.Reloads().Errors) == 2 })
		lines := strings.Count(text, "\n")
		assert.Contains(t, s.Reloads().Errors[0], fmt.Sprintf("%s:%d:16: ", file, lines+2))
		assert.Contains(t, s.Reloads().Errors[1], fmt.Sprintf("%s:%d:1: ", file, lines+3))
		eventually(t, "the complaint in the log", func() bool { return len(s.log.lines("level=ERROR")) > 0 })
		assert.Equal(t, "hello", c.get("/a"))

		// What it names has its place as well, and so has what a reload cannot change.
		for _, row := range []struct{ more, want string }{
			{"[listen.tls]\ncert = \"/none\"\nkey = \"/nokey\"\n", ":%d:8: listen.tls.cert: open /none: no such file"},
			{"[access_log]\npath = \"/none/log\"\n", ":%d:8: access_log.path: create /none/log: no such file"},
			{"[limits]\n[listen.tls]\ncert = \"/none\"\nkey = \"/nokey\"\n", ":%d:8: listen.tls.cert: open /none: no such file"},
		} {
			require.NoError(t, os.WriteFile(file, []byte(text+row.more), 0o644))
			at := lines + 1 + strings.Count(row.more[:strings.Index(row.more, "/none")], "\n")
			eventually(t, row.want, func() bool {
				return strings.Contains(fmt.Sprint(s.Reloads().Errors), file+fmt.Sprintf(row.want, at))
			})
		}
		require.NoError(t, os.WriteFile(file, []byte(replaced(t, text, "workers = 2", "workers = 3")), 0o644))
		eventually(t, "the complaint", func() bool {
			errs := s.Reloads().Errors
			return len(errs) == 1 && strings.Contains(errs[0], ": needs an upgrade: listen.workers: 2 -> 3") &&
				strings.Contains(errs[0], file+":") && strings.Contains(errs[0], "atlas upgrade FILE, or SIGUSR2")
		})
		assert.Equal(t, "hello", c.get("/a"))

		other := replaced(t, text, "root = ", "#") + fmt.Sprintf("[static_files]\nroot = %q\n", folder(t, "other"))
		require.NoError(t, os.WriteFile(file+".new", []byte(other), 0o644))
		require.NoError(t, os.Rename(file+".new", file))
		eventually(t, "the other", func() bool { return c.get("/a") == "other" })
		require.NoError(t, os.Remove(file))
		eventually(t, "the complaint", func() bool {
			errs := s.Reloads().Errors
			return len(errs) == 1 && strings.Contains(errs[0], "no such file")
		})
		assert.Equal(t, "other", c.get("/a"))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		eventually(t, "the first", func() bool { return c.get("/a") == "hello" })
		failed := s.Reloads().Failed
		require.NoError(t, s.Reload("test"))
		assert.Equal(t, failed, s.Reloads().Failed)
	})
}
