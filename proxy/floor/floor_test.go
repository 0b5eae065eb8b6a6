//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/proxy/uring"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-listen" {
		main()
		return
	}
	os.Exit(m.Run())
}

// requireRing skips only where the kernel is too old or says no, and never
// where CI said that the ring has to run.
func requireRing(t *testing.T) {
	t.Helper()
	err := uring.Probe()
	if err == nil {
		return
	}
	if os.Getenv("REQUIRE_URING") != "" {
		t.Fatalf("REQUIRE_URING is set: %v", err)
	}
	t.Skip(err)
}

// start starts the program on a port of the kernel's choice, and returns where
// it listens.
func start(t *testing.T, args ...string) string {
	t.Helper()
	requireRing(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimPrefix(strings.TrimSpace(line), "listening on ")
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// answers reads n answers and returns their bodies, joined.
func answers(t *testing.T, from io.Reader, n int) string {
	t.Helper()
	reader := bufio.NewReader(from)
	var all strings.Builder
	for range n {
		response, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode)
		_, err = io.Copy(&all, response.Body)
		require.NoError(t, err)
	}
	return all.String()
}

const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func TestAnswer(t *testing.T) {
	t.Parallel()
	address := start(t)
	for i := range len(request) { // cut at every byte
		c := dial(t, address)
		_, err := io.WriteString(c, request[:i])
		require.NoError(t, err)
		_, err = io.WriteString(c, request[i:]+request+request)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("x", 3*bodyBytes), answers(t, c, 3))
		require.NoError(t, c.CloseWrite())
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
}

// A head's end is found wherever the stream is cut.
func TestHeads(t *testing.T) {
	stream := "a\r\n\r\r\n\r\nb\r\n\r\n\r\n\r\n"
	for i := range len(stream) {
		s := &socket{}
		require.Equal(t, 3, s.heads([]byte(stream[:i]))+s.heads([]byte(stream[i:])), "cut at %d", i)
	}
}

func TestAnswerOfFile(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789"), 1<<20/10)
	file := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(file, body, 0o600))
	c := dial(t, start(t, "-body", file))
	_, err := io.WriteString(c, request+request)
	require.NoError(t, err)
	require.Equal(t, string(body)+string(body), answers(t, c, 2))
}

// Bytes of both directions arrive in order, also more of them than there are
// buffers, and so do the ends.
func TestRelay(t *testing.T) {
	t.Parallel()
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer upstream.Close()
	go func() { // sends back what it receives, once it has all
		for {
			c, err := upstream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, err := io.ReadAll(c)
				if err == nil {
					_, _ = c.Write(all) // the client sees what is missing
				}
			}()
		}
	}()
	address := start(t, "-upstream", upstream.Addr().String())
	for _, length := range []int{0, 1, bufferBytes, 2 * bufferCount * bufferBytes} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			sent := make([]byte, length)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(sent) // never fails
			c := dial(t, address)
			_, err := c.Write(sent)
			require.NoError(t, err)
			require.NoError(t, c.CloseWrite())
			got, err := io.ReadAll(c)
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent, got), "%d bytes came back of %d", len(got), length)
		})
	}
}

// Connections that nobody can carry, or that are cut, leave the others alone.
func TestRelayToNobody(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	address := start(t, "-upstream", nobody.Addr().String())
	for range 3 {
		_, err := dial(t, address).Read(make([]byte, 1))
		require.Error(t, err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, row := range []struct {
		want string
		args []string
	}{
		{"unexpected argument", []string{"x"}},
		{"-upstream", []string{"-upstream", "nowhere"}},
		{"no such file", []string{"-body", "/no/body"}},
		{"listen tcp", []string{"-listen", "256.0.0.1:1"}},
		{"not defined", []string{"-x"}},
	} {
		require.ErrorContains(t, run(io.Discard, io.Discard, row.args), row.want)
	}
}
