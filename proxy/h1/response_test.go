package h1

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReusable(t *testing.T) {
	tests := []struct {
		name   string
		input  string
		method Method
		want   bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", MethodGet, true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", MethodGet, true},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", MethodGet, true},
		{"said close", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", MethodGet, false},
		{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", MethodGet, false},
		{"1.0 keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", MethodGet, true},
		{"ends with the connection", "HTTP/1.1 200 OK\r\n\r\n", MethodGet, false},
		{"ends with the head", "HTTP/1.1 200 OK\r\n\r\n", MethodHead, true},
		{"upgraded", "HTTP/1.1 101 Switching Protocols\r\n\r\n", MethodGet, false},
		{"tunnel", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", MethodConnect, false},
		{"no tunnel", "HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\n", MethodConnect, true},
		{"body where none may be", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", MethodGet, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp := new(Response)
			_, err := ParseResponse([]byte(test.input), resp)
			require.NoError(t, err)
			assert.Equal(t, test.want, resp.Reusable(test.method))
		})
	}
}

func TestBodyEmpty(t *testing.T) {
	assert.True(t, Body{}.Empty())
	assert.True(t, Body{Kind: BodyLength}.Empty())
	assert.False(t, Body{Kind: BodyLength, Length: 1}.Empty())
	assert.False(t, Body{Kind: BodyChunked}.Empty())
	assert.False(t, Body{Kind: BodyClose}.Empty())
}

// TestResponseIsReused: nothing of an earlier response shows after a later one.
func TestResponseIsReused(t *testing.T) {
	resp := new(Response)
	_, err := ParseResponse([]byte("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: close, x\r\nContent-Length: 5\r\n\r\n"), resp)
	require.NoError(t, err)
	for _, input := range []string{"HTTP/1.0 404 \r\n\r\n", "HTTP/1.1 404 Not", "", "X"} {
		_, err = ParseResponse([]byte(input), resp)
		fresh := new(Response)
		_, freshErr := ParseResponse([]byte(input), fresh)
		require.Equal(t, freshErr, err)
		clear(resp.fields[:])
		assert.True(t, assert.ObjectsAreEqual(fresh, resp), "after %q", input)
	}
}
