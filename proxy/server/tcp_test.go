package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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

// tcpConfig passes connections on to upstreams. upstream is what each of them is
// told besides.
func tcpConfig(engine loop.Engine, upstreams []string, upstream string, more ...string) string {
	text := looptest.ProxyConfig(engine, upstreams, more...)
	text = strings.Replace(text, "[listen]\n", "[listen]\nmode = \"tcp\"\n", 1)
	return strings.ReplaceAll(text, "[[upstreams]]\n", "[[upstreams]]\n"+upstream+"\n")
}

// accepting has the configuration take PROXY headers of this machine.
func accepting(text string) string {
	return strings.Replace(text, "[listen]\n", "[listen]\naccept_proxy = [\"127.0.0.0/8\"]\n", 1)
}

// dialFrom connects from an address of this machine's own network.
func dialFrom(t testing.TB, from, address string) *client {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := dialer.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return &client{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

// forwarded is an origin that says for whom it was asked.
func forwarded(t testing.TB) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	})
}

// In tcp mode HTTP is bytes like any others, and nobody adds anything to it.
func TestTCP(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, tcpConfig(engine, []string{forwarded(t)}, ""), nil)
		for range 8 {
			c := s.dial()
			for range 3 {
				assert.Empty(t, c.get("/"))
			}
			require.NoError(t, c.Close())
		}
		assert.Contains(t, s.log.lines("listening")[0], "mode=tcp")
		assert.True(t, s.shutdown(patience))
	})
}

// A tunnel is left alone until the time to drain is over, and cut then.
func TestTCPDrain(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, tcpConfig(engine, []string{forwarded(t)}, ""), nil)
		c, other := s.dial(), s.dial()
		assert.Empty(t, c.get("/"))
		assert.Empty(t, other.get("/"))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan bool, 1)
		go s.once.Do(func() { ended <- s.Shutdown(ctx) })
		eventually(t, "new connections to be refused", func() bool {
			c, err := net.Dial("tcp", s.Addr())
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		assert.Empty(t, c.get("/"), "while it drains")
		require.NoError(t, c.Close())
		cancel() // the time of the drain is over
		assert.False(t, <-ended)
		_, err := io.ReadAll(other)
		assert.ErrorContains(t, err, "reset")
	})
}

// What goes wrong with a connection is in the log, with the address that counts.
func TestTCPLog(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, accepting(tcpConfig(engine, []string{"127.0.0.1:1"}, "")), nil)
		c := s.dial()
		c.send("PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n")
		_, err := io.ReadAll(c)
		assert.ErrorContains(t, err, "reset")
		eventually(t, "the log", func() bool { return len(s.log.lines("connection failed")) == 1 })
		assert.Contains(t, s.log.lines("connection failed")[0], `level=WARN msg="connection failed" client=192.0.2.7:40000 `+
			`upstream=up0 why="no upstream accepts connections" cause="upstream up0 (127.0.0.1:1): connect: connection refused"`)
		c = s.dial()
		c.send("SSH-2.0\r\n")
		_, err = io.ReadAll(c)
		assert.ErrorContains(t, err, "reset")
		eventually(t, "the log", func() bool { return len(s.log.lines("PROXY header")) == 1 })
		assert.Contains(t, s.log.lines("PROXY header")[0], `level=WARN msg="PROXY header refused" proxy=`+
			c.LocalAddr().String()+` why="no PROXY header"`)
	})
}

// A PROXY header counts in every mode, and from listed networks only.
func TestAcceptProxy(t *testing.T) {
	const line = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		http := looptest.ProxyConfig(engine, []string{forwarded(t)})
		c := launch(t, accepting(http), nil).dial()
		c.send(line)
		assert.Equal(t, "192.0.2.7", c.get("/"))
		assert.Equal(t, "192.0.2.7", c.get("/again"))

		c = launch(t, accepting(looptest.StaticConfig(t, engine)), nil).dial()
		c.send(line)
		assert.Equal(t, "hello", c.get("/a"))

		c = launch(t, http, nil).dial()
		c.send(line + "\r\n")
		resp, _ := c.receive()
		assert.Equal(t, 400, resp.StatusCode, "nobody asked for it")
	})
}

// run starts a program that ends with the test, and waits until it listens at all
// of its ports: it opens them one after the other.
func run(t *testing.T, ports []int, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var said logBook
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, looptest.Start(cmd))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a SIGINT is ignored by what was started in the background
		<-ended
	})
	eventually(t, program+" to listen", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, said.lines(""))
		default:
		}
		for _, port := range ports {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return false
			}
			_ = c.Close()
		}
		return true
	})
}

// HAProxy understands what we send, and we what it sends: the client's address goes
// through a row of three.
func TestHAProxyInARow(t *testing.T) {
	haproxy := requireInstalled(t, "haproxy")
	for version, send := range map[string]string{"v1": "send-proxy", "v2": "send-proxy-v2-ssl-cn"} {
		t.Run(version, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				last := launch(t, accepting(looptest.ProxyConfig(engine, []string{forwarded(t)})), nil)
				port := looptest.FreePort(t)
				file := filepath.Join(t.TempDir(), "haproxy.cfg")
				// The interval of its checks is their time-out as well, which a busy machine misses.
				require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend in
  bind 127.0.0.1:%d accept-proxy
  default_backend out
backend out
  server last %s %s check inter 50ms fall 1000 check-send-proxy
`, port, last.Addr(), send), 0o644))
				run(t, []int{port}, haproxy, "-db", "-f", file)
				first := launch(t, tcpConfig(engine, []string{fmt.Sprintf("127.0.0.1:%d", port)},
					fmt.Sprintf("send_proxy = %q", version), "[upstreams.health_check]\ninterval = \"50ms\""), nil)
				for i := range 5 {
					from := fmt.Sprintf("127.0.0.%d", 10+i)
					c := dialFrom(t, from, first.Addr())
					assert.Equal(t, from, c.get("/"))
					assert.Equal(t, from, c.get("/"))
					require.NoError(t, c.Close())
				}
				time.Sleep(200 * time.Millisecond) // checks both ways
				assert.Empty(t, last.log.lines("refused"), "HAProxy's checks say that they are its own")
				assert.Empty(t, first.log.lines("down"))
			})
		})
	}
}

// nginx understands what we send, and we what it sends.
func TestNginxInARow(t *testing.T) {
	nginx := requireInstalled(t, "nginx")
	built, err := exec.Command(nginx, "-V").CombinedOutput()
	require.NoError(t, err)
	_, modules, _ := strings.Cut(string(built), "--modules-path=")
	stream := filepath.Join(strings.Fields(modules + " .")[0], "ngx_stream_module.so")
	load := ""
	if _, err := os.Stat(stream); err == nil {
		load = "load_module " + stream + ";"
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		last := launch(t, accepting(looptest.ProxyConfig(engine, []string{forwarded(t)})), nil)
		said, passed := looptest.FreePort(t), looptest.FreePort(t)
		dir := t.TempDir()
		file := filepath.Join(dir, "nginx.conf")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `%s
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {
    listen 127.0.0.1:%d proxy_protocol;
    location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port"; }
  }
}
stream {
  server { listen 127.0.0.1:%d; proxy_pass %s; proxy_protocol on; }
}
`, load, said, passed, last.Addr()), 0o644))
		run(t, []int{said, passed}, nginx, "-p", dir, "-c", file)
		for _, version := range []string{"v1", "v2"} {
			s := launch(t, tcpConfig(engine, []string{fmt.Sprintf("127.0.0.1:%d", said)},
				fmt.Sprintf("send_proxy = %q", version)), nil)
			c := dialFrom(t, "127.0.0.9", s.Addr())
			assert.Equal(t, c.LocalAddr().String()+" "+s.Addr(), c.get("/"))
			require.NoError(t, c.Close())
		}
		c := dialFrom(t, "127.0.0.8", fmt.Sprintf("127.0.0.1:%d", passed))
		assert.Equal(t, "127.0.0.8", c.get("/"))
		require.NoError(t, c.Close())
	})
}

// What belongs to requests is no matter of tcp mode, and a PROXY header none of
// http mode.
func TestTCPConfig(t *testing.T) {
	for text, want := range map[string]string{
		tcpConfig(loop.Netpoll, []string{"127.0.0.1:1"}, "", "[routing]", `strategy = "hash"`, `hash = "path"`): "ip_hash",
		strings.Replace(looptest.ProxyConfig(loop.Netpoll, []string{"127.0.0.1:1"}), "name", "send_proxy = \"v1\"\nname",
			1): "X-Forwarded-For",
	} {
		_, _, err := config.Parse("atlas.toml", []byte(text))
		assert.ErrorContains(t, err, want)
	}
}
