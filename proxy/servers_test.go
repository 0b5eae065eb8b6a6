package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// The program between real ones: curl asks, and nginx or HAProxy is asked. What
// is behind those is net/http, or nginx's own files.

// bodySizes are of files and of uploads. A short run leaves the last one out, and
// so does one under the race detector.
var bodySizes = []int{0, 1, 1000, 100_000, 10_000_000}

func sizesToTry() []int {
	if testing.Short() || invariant.Enabled {
		return bodySizes[:len(bodySizes)-1]
	}
	return bodySizes
}

// store is the origin: it has the files, sums up what it gets, and has two ends
// that are never reached.
type store struct {
	address string
	left    chan string // told when somebody leaves /endless, and how that showed
	files   string      // directory above files/
}

func startStore(t testing.TB) *store {
	t.Helper()
	s := &store{left: make(chan string, 10), files: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(s.files, "files"), 0o755))
	for _, size := range bodySizes {
		require.NoError(t, os.WriteFile(s.file(size), looptest.Pattern(size), 0o644))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = ln.Addr().String()
	server := &http.Server{Handler: s}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ln) // it ends when it is closed
	}()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return s
}

func (s *store) file(size int) string { return filepath.Join(s.files, "files", fmt.Sprint(size)) }

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/endless":
		how := "while it sent"
		if r.Method == "GET" {
			how = "while it received"
			piece := make([]byte, 10_000)
			for err := error(nil); err == nil; {
				_, err = w.Write(piece)
			}
		} else {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		s.left <- how
	case r.URL.Path == "/sum":
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "%s %d %x %v", r.Method, n, sum.Sum(nil), err)
	default:
		f, err := os.Open(filepath.Join(s.files, filepath.Clean("/"+r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		w.Header().Set("ETag", `"stored"`)
		http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), f)
	}
}

// neighbour is another program in the path of the bytes.
type neighbour struct {
	t       testing.TB
	program string
	args    []string
	address string
	cmd     *exec.Cmd
	log     *looptest.Printed
}

func (n *neighbour) start() {
	n.t.Helper()
	n.log = new(looptest.Printed)
	n.cmd = exec.Command(n.program, n.args...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	require.NoError(n.t, looptest.Start(n.cmd))
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", n.address)
		if err == nil {
			require.NoError(n.t, c.Close())
			return
		}
		require.True(n.t, time.Now().Before(end), "%s does not listen: %s", n.program, n.log)
	}
}

// stop ends the process and what it has started.
func (n *neighbour) stop() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	kill := time.AfterFunc(patience, func() { _ = n.cmd.Process.Kill() })
	_ = n.cmd.Wait()
	kill.Stop()
	n.cmd = nil
}

// neighbours are what is asked, and the configuration of each. $PORT, $ORIGIN,
// $DIR and $FILES are filled in.
var neighbours = map[string]struct {
	config string
	args   []string
}{
	"nginx": {`daemon off;
$USER
worker_processes 1;
pid $DIR/nginx.pid;
error_log $DIR/error.log;
events {}
http {
	access_log off;
	client_body_temp_path $DIR/client_body;
	proxy_temp_path $DIR/proxy;
	fastcgi_temp_path $DIR/fastcgi;
	uwsgi_temp_path $DIR/uwsgi;
	scgi_temp_path $DIR/scgi;
	client_max_body_size 0;
	server {
		listen 127.0.0.1:$PORT;
		root $FILES;
		location /sum { proxy_pass http://$ORIGIN; }
		location /endless {
			proxy_pass http://$ORIGIN;
			proxy_http_version 1.1;
			proxy_request_buffering off;
			proxy_buffering off;
		}
	}
}
`, []string{"-e", "$DIR/error.log", "-p", "$DIR", "-c", "$DIR/config"}},
	"haproxy": {`defaults
	mode http
	timeout connect 20s
	timeout client 20s
	timeout server 20s
listen store
	bind 127.0.0.1:$PORT
	server store $ORIGIN
`, []string{"-db", "-f", "$DIR/config"}},
}

// startNeighbour starts one of them in front of the store.
func startNeighbour(t testing.TB, name string, s *store) *neighbour {
	t.Helper()
	requireInstalled(t, name)
	dir, port := t.TempDir(), strconv.Itoa(looptest.FreePort(t))
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // its workers read our files
	}
	fill := strings.NewReplacer("$DIR", dir, "$PORT", port, "$ORIGIN", s.address, "$FILES", s.files, "$USER", user)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config"), []byte(fill.Replace(neighbours[name].config)), 0o644))
	n := &neighbour{t: t, program: name, address: "127.0.0.1:" + port}
	for _, arg := range neighbours[name].args {
		n.args = append(n.args, fill.Replace(arg))
	}
	t.Cleanup(n.stop)
	n.start()
	return n
}

// scene is curl, the program, a neighbour and the store.
type scene struct {
	*testing.T
	*store
	next  *neighbour
	atlas *running
}

// scenes runs a test with each neighbour, on each engine.
func scenes(t *testing.T, test func(s *scene)) {
	requireInstalled(t, "curl")
	for name := range neighbours {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				s := &scene{T: t, store: startStore(t)}
				s.next = startNeighbour(t, name, s.store)
				s.atlas = launch(t, (&slowOrigin{address: s.next.address}).proxyConfig(engine, ""))
				test(s)
				assert.NotContains(t, s.atlas.log.String(), "level=ERROR")
			})
		})
	}
}

func (s *scene) url(path string) string { return "http://" + s.atlas.address + path }

// command prepares curl.
func (s *scene) command(args ...string) *exec.Cmd {
	all := append([]string{"--disable", "--noproxy", "*", "-sS", "--max-time", "30"}, args...)
	return exec.Command("curl", all...)
}

// curl runs it and returns what it prints.
func (s *scene) curl(args ...string) string {
	s.Helper()
	cmd := s.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NoError(s, err, "curl %q: %s", args, stderr.String())
	return string(out)
}

func (s *scene) summed(method string, size int) string {
	return fmt.Sprintf("%s %d %x <nil>", method, size, sha256.Sum256(looptest.Pattern(size)))
}

func TestCurlUploads(t *testing.T) {
	t.Parallel()
	scenes(t, func(s *scene) {
		for _, size := range sizesToTry() {
			body, url := "@"+s.file(size), s.url("/sum")
			for _, row := range []struct {
				method string
				args   []string
			}{
				{"POST", []string{"--data-binary", body}},
				{"POST", []string{"--data-binary", body, "-H", "Transfer-Encoding: chunked"}},
				{"POST", []string{"--data-binary", body, "-H", "Expect:"}},
				{"POST", []string{"--data-binary", body, "--http1.0"}},
				{"PUT", []string{"-T", s.file(size)}},
				{"PUT", []string{"-T", s.file(size), "-H", "Expect: 100-continue"}},
				{"PUT", []string{"-T", s.file(size), "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"}},
				{"PUT", []string{"-T", s.file(size), "--http1.0"}},
			} {
				if size == 0 && len(row.args) == 6 {
					continue // curl 7.88 forgets the last chunk of nothing, whoever it talks to
				}
				assert.Equal(s, s.summed(row.method, size), s.curl(append(row.args, url)...), "%q", row.args)
			}
			chunks := s.command("-T", "-", url) // of unknown length, from a pipe
			chunks.Stdin = bytes.NewReader(looptest.Pattern(size))
			out, err := chunks.Output()
			assert.NoError(s, err)
			assert.Equal(s, s.summed("PUT", size), string(out))
		}
		// Told to go on before it sends its body, by us and once.
		cmd := s.command("-v", "-T", s.file(1000), "-H", "Expect: 100-continue", "--expect100-timeout", "20", s.url("/sum"))
		said, err := cmd.CombinedOutput()
		assert.NoError(s, err)
		assert.Equal(s, 1, strings.Count(string(said), "< HTTP/1.1 100 Continue"), "%s", said)
		assert.Contains(s, string(said), s.summed("PUT", 1000))
	})
}

func TestCurlDownloads(t *testing.T) {
	t.Parallel()
	scenes(t, func(s *scene) {
		var urls []string
		for _, size := range sizesToTry() {
			url := s.url(fmt.Sprintf("/files/%d", size))
			urls = append(urls, "-o", "/dev/null", url)
			assert.Equal(s, string(looptest.Pattern(size)), s.curl(url))
			assert.Equal(s, string(looptest.Pattern(size)), s.curl("--http1.0", url))
			head := s.curl("-I", url)
			assert.Contains(s, head, "HTTP/1.1 200 OK\r\n")
			assert.Contains(s, strings.ToLower(head), fmt.Sprintf("content-length: %d\r\n", size)) // HAProxy's are lower
		}
		wanted := ""
		for i, size := range sizesToTry() {
			wanted += fmt.Sprintf("200 %d %d\n", max(0, 1-i), size)
		}
		connects := s.curl(append(urls, "-w", "%{http_code} %{num_connects} %{size_download}\n")...)
		assert.Equal(s, wanted, connects, "one connection for all")

		url := s.url("/files/100000")
		assert.Equal(s, string(looptest.Pattern(100_000)[100:200]), s.curl("-r", "100-199", url))
		assert.Equal(s, "206 bytes 99990-99999/100000",
			s.curl("-r", "-10", "-o", "/dev/null", "-w", "%{http_code} %header{content-range}", url))
		assert.Equal(s, "416", s.curl("-r", "100000-", "-o", "/dev/null", "-w", "%{http_code}", url))
		etag := strings.TrimSpace(s.curl("-o", "/dev/null", "-w", "%header{etag}", url))
		assert.NotEmpty(s, etag)
		assert.Equal(s, "304 0 1\n200 100000 0\n", s.curl("-H", "If-None-Match: "+etag, "-o", "/dev/null",
			"-w", "%{http_code} %{size_download} %{num_connects}\n", url, "--next", "-sS", "-o", "/dev/null",
			"-w", "%{http_code} %{size_download} %{num_connects}\n", url), "and the connection goes on")
		assert.Equal(s, "404", s.curl("-o", "/dev/null", "-w", "%{http_code}", s.url("/files/none")))
	})
}

// A curl that is killed is noticed at the other end, whichever way the bytes went.
func TestCurlKilled(t *testing.T) {
	t.Parallel()
	scenes(t, func(s *scene) {
		for _, row := range []struct {
			how  string
			args []string
		}{
			{"while it received", []string{"-o", "/dev/null"}},
			{"while it sent", []string{"-X", "PUT", "-T", "/dev/zero"}},
		} {
			cmd := s.command(append(row.args, "-v", s.url("/endless"))...)
			talk, err := cmd.StderrPipe()
			require.NoError(s, err)
			require.NoError(s, looptest.Start(cmd))
			// It has sent its request, and more than buffers hold.
			_, err = io.ReadFull(talk, make([]byte, 100))
			require.NoError(s, err)
			go func() { _, _ = io.Copy(io.Discard, talk) }()
			time.Sleep(200 * time.Millisecond)
			require.NoError(s, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
			select {
			case how := <-s.left:
				assert.Equal(s, row.how, how)
			case <-time.After(patience):
				s.Fatalf("nobody noticed at the origin that a client left %s", row.how)
			}
			assert.Equal(s, "200", s.curl("-o", "/dev/null", "-w", "%{http_code}", s.url("/files/1")))
		}
	})
}

// asking asks again and again, on connections that are kept, until it is told to
// stop. It counts the answers, and reports any that is not the file.
func (s *scene) asking(stop <-chan struct{}, answers *atomic.Int64) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-stop:
			return
		default:
		}
		resp, err := client.Get(s.url("/files/1000"))
		if err != nil {
			s.Errorf("a client lost its connection: %v", err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || len(body) != 1000 {
			s.Errorf("an answer of %d bytes, %d: %v", len(body), resp.StatusCode, err)
			return
		}
		answers.Add(1)
	}
}

// An nginx that takes its configuration anew closes the connections that it keeps
// with us, whenever: those who GET see nothing of it. One that ends and comes
// back is used again at once.
func TestNginxRestarts(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := &scene{T: t, store: startStore(t)}
		s.next = startNeighbour(t, "nginx", s.store)
		s.atlas = launch(t, (&slowOrigin{address: s.next.address}).proxyConfig(engine, ""))
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var answers atomic.Int64
		for range 4 {
			clients.Go(func() { s.asking(stop, &answers) })
		}
		for range 5 {
			before := answers.Load()
			require.NoError(t, s.next.cmd.Process.Signal(syscall.SIGHUP))
			for end := time.Now().Add(patience); answers.Load() < before+100 && !t.Failed(); time.Sleep(time.Millisecond) {
				require.True(t, time.Now().Before(end), "no answers")
			}
			time.Sleep(50 * time.Millisecond) // the old worker closes what is idle
		}
		close(stop)
		clients.Wait()
		client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
		defer client.CloseIdleConnections()
		for range 3 {
			s.next.stop()
			resp, err := client.Get(s.url("/files/1"))
			require.NoError(t, err)
			assert.Equal(t, 502, resp.StatusCode, "nobody listens")
			require.NoError(t, resp.Body.Close())
			s.next.start()
			resp, err = client.Get(s.url("/files/1"))
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode, "it is back")
			require.NoError(t, resp.Body.Close())
		}
	})
}

// An HAProxy that dies with connections of ours, while requests run, costs no
// more than the answers that it had begun.
func TestHAProxyDies(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := &scene{T: t, store: startStore(t)}
		s.next = startNeighbour(t, "haproxy", s.store)
		s.atlas = launch(t, (&slowOrigin{address: s.next.address}).proxyConfig(engine, ""))
		client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
		defer client.CloseIdleConnections()
		for range 3 {
			resp, err := client.Get(s.url("/files/10000000"))
			require.NoError(t, err)
			require.NoError(t, s.next.cmd.Process.Kill())
			_ = s.next.cmd.Wait() // it was killed
			n, err := io.Copy(io.Discard, resp.Body)
			if n < 10_000_000 { // else all of it was under way
				assert.True(t, errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
			}
			require.NoError(t, resp.Body.Close())
			resp, err = client.Get(s.url("/files/1"))
			require.NoError(t, err)
			assert.Equal(t, 502, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
			s.next.start()
			resp, err = client.Get(s.url("/files/1"))
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
		}
	})
}
