package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// What the configuration names and is not there is an error that says so, and
// leaves nothing open (see TestMain).
func TestStartErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		static := func(root, listen string) string {
			return fmt.Sprintf("[listen]\nmode = \"static\"\nengine = %q\nroot = %q\n%s", engine, root, listen)
		}
		other := launch(t, looptest.StaticConfig(t, engine), nil)
		_, otherPort, _ := net.SplitHostPort(other.Addr())
		for _, row := range []struct {
			name, text string
			want       []string
		}{
			{"a root that does not exist", static("/no/such/root", "port = 0"),
				[]string{"[static_files] root", "/no/such/root", "no such file or directory"}},
			{"a root that is a file", static(file, "port = 0"),
				[]string{"[static_files] root", file, "not a directory"}},
			{"a port that another program has", static(".", fmt.Sprintf("address = \"127.0.0.1\"\nport = %d", port)),
				[]string{fmt.Sprintf("[listen] 127.0.0.1:%d is in use", port)}},
			{"a port that another Atlas has", static(".", "address = \"127.0.0.1\"\nport = "+otherPort),
				[]string{"[listen] 127.0.0.1:" + otherPort + " is in use"}},
			{"a port that another Atlas has, on all addresses", static(".", "address = \"0.0.0.0\"\nport = "+otherPort),
				[]string{"[listen] 0.0.0.0:" + otherPort + " is in use"}},
			{"an address of another machine", static(".", "address = \"192.0.2.1\"\nport = 0"),
				[]string{"[listen] 192.0.2.1:0: this machine has no such address"}},
			{"an address that is a name nobody has", static(".", "address = \"no-such-host.invalid\"\nport = 0"),
				[]string{"[listen]", "no-such-host.invalid"}},
			{"no certificate", static(".", "port = 0\n[listen.tls]\ncert = \"c.pem\"\nkey = \"k.pem\""),
				[]string{"[listen.tls]", "c.pem: no such file"}},
			{"no certificate in mode tcp", "[listen]\nport = 0\nmode = \"tcp\"\n[listen.tls]\ncert = \"c\"\nkey = \"k\"\n" +
				"[[upstreams]]\nname = \"u\"\naddress = \"127.0.0.1\"\nport = 1",
				[]string{"[listen.tls]", "c: no such file"}},
		} {
			t.Run(row.name, func(t *testing.T) {
				log := new(logBook)
				s, err := Start(parse(t, row.text), log.logger())
				require.Nil(t, s)
				require.Error(t, err)
				for _, want := range row.want {
					assert.ErrorContains(t, err, want)
				}
				assert.NotContains(t, err.Error(), "\n", "one line")
				assert.Empty(t, log.lines("listening"))
			})
		}
		assert.Equal(t, "hello", other.dial().get("/a"), "the other Atlas goes on")
	})
}

// What asks for TLS never gets plain text: nothing listens.
func TestStartTLSListensNowhere(t *testing.T) {
	port := looptest.FreePort(t)
	text := fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = %d\nmode = \"static\"\nroot = \".\"\n"+
		"[listen.tls]\ncert = \"c\"\nkey = \"k\"\n", port)
	_, err := Start(parse(t, text), new(logBook).logger())
	require.Error(t, err)
	_, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	assert.ErrorContains(t, err, "refused")
}

// More workers than cores are allowed and not pinned; that is told once.
func TestMoreWorkersThanCores(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		workers := len(allowedCPUs()) + 3
		text := strings.Replace(looptest.StaticConfig(t, engine), "workers = 2\npin = false", fmt.Sprintf("workers = %d", workers), 1)
		s := launch(t, text, nil)
		assert.Len(t, s.workers, workers)
		for range 4 * workers {
			assert.Equal(t, "hello", s.dial().get("/a"))
		}
		warnings := s.log.lines("level=WARN")
		if !engine.Pins() {
			assert.Empty(t, warnings)
			return
		}
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0], fmt.Sprintf("workers=%d cores=%d", workers, workers-3))
	})
}

// Without a number of workers there is one for each core.
func TestWorkersByDefault(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, strings.Replace(looptest.StaticConfig(t, engine), "workers = 2\n", "", 1), nil)
		assert.NotEmpty(t, s.workers)
		assert.LessOrEqual(t, len(s.workers), len(allowedCPUs()))
	})
}

// A port of 0 is one free port, which all workers have.
func TestPortZero(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		address := "::1"
		if ln, err := net.Listen("tcp", "[::1]:0"); err == nil {
			require.NoError(t, ln.Close())
		} else {
			address = "127.0.0.1" // a machine without IPv6
		}
		s := launch(t, strings.Replace(looptest.StaticConfig(t, engine), "127.0.0.1", address, 1), nil)
		host, port, err := net.SplitHostPort(s.Addr())
		require.NoError(t, err)
		assert.Equal(t, address, host)
		assert.NotEqual(t, "0", port)
		for _, ln := range s.listeners() {
			assert.Equal(t, s.Addr(), ln.Addr().String())
		}
		assert.Equal(t, "hello", s.dial().get("/a"))
	})
}
