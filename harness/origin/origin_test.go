package origin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDocument(t *testing.T) {
	for _, length := range []int{0, 1, 1024, 100_000} {
		body := Document(length)
		require.Len(t, body, length)
		require.Equal(t, body, Document(length), "a pure function of the length")
	}
	body := Document(1024)
	require.False(t, bytes.HasPrefix(Document(2048), body), "the start of a longer one does not pass for it")
	require.False(t, bytes.Equal(body[:512], body[512:]))
}

func TestServe(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, WriteTree(root, map[string]int{"/1k.html": 1024, "/deep/er/2k.html": 2048}))
	info, err := os.Stat(filepath.Join(root, "deep", "er", "2k.html"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode().Perm())

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())

	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	var pauses atomic.Int64
	go func() { served <- Serve(ctx, address, root, func() { pauses.Add(1) }) }()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 30*time.Second, 5*time.Millisecond)

	for path, want := range map[string][]byte{"/1k.html": Document(1024), "/deep/er/2k.html": Document(2048)} {
		response, err := http.Get("http://" + address + path)
		require.NoError(t, err)
		got, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, got)
		require.EqualValues(t, len(want), response.ContentLength)
	}
	response, err := http.Get("http://" + address + "/none")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	require.EqualValues(t, 3, pauses.Load(), "one before each answer")

	// What is sent is read, all of it.
	response, err = http.Post("http://"+address+"/1k.html", "text/plain", bytes.NewReader(Document(3<<20)))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Zero(t, response.ContentLength)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive ")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NotContains(t, string(said), "200 OK")

	cancel()
	require.NoError(t, <-served)
}

func TestServeFails(t *testing.T) {
	require.ErrorIs(t, Serve(t.Context(), "127.0.0.1:0", filepath.Join(t.TempDir(), "none"), nil), os.ErrNotExist)
	require.Error(t, Serve(t.Context(), "nowhere", t.TempDir(), nil))
}
