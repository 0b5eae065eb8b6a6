package h1

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestItems(t *testing.T) {
	tests := []struct {
		value string
		want  []string
	}{
		{"", nil},
		{"a", []string{"a"}},
		{"a,b", []string{"a", "b"}},
		{" a\t,\tb c , ", []string{"a", "b c"}},
		{",,a,,", []string{"a"}},
		{`"a,b",c`, []string{`"a,b"`, "c"}},
		{`W/"a\",b", c`, []string{`W/"a\",b"`, "c"}},
		{`"a,b`, []string{`"a,b`}},
		{`"a\`, []string{`"a\`}},
		{`a\,b`, []string{`a\`, "b"}},
	}
	for _, test := range tests {
		t.Run(test.value, func(t *testing.T) {
			var got []string
			for l := Items([]byte(test.value)); l.Next(); {
				got = append(got, string(l.Item))
			}
			assert.Equal(t, test.want, got)
		})
	}
}

func TestHasToken(t *testing.T) {
	assert.True(t, HasToken([]byte("gzip, Trailers"), "trailers"))
	assert.False(t, HasToken([]byte("gzip, trailers2"), "trailers"))
	assert.False(t, HasToken(nil, "trailers"))
}

func TestHasItem(t *testing.T) {
	assert.True(t, HasItem([]byte("foo/1, WebSocket"), []byte("websocket")))
	assert.True(t, HasItem([]byte("websocket"), []byte("WebSocket")))
	assert.False(t, HasItem([]byte("websocket, foo"), []byte("foo/1")))
	assert.False(t, HasItem(nil, []byte("foo")))
}

func TestEqualFold(t *testing.T) {
	assert.True(t, EqualFold([]byte("WebSocket"), "websocket"))
	assert.True(t, EqualFold(nil, ""))
	assert.False(t, EqualFold([]byte("websocke"), "websocket"))
	assert.False(t, EqualFold([]byte("K\r"), "k-"), "only letters have a case")
	assert.False(t, EqualFold([]byte("\xe2\x84\xaa"), "k"), "the Kelvin sign is no k")
	for c := range 256 {
		b := []byte{byte(c)}
		isLetter := 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80
		assert.Equal(t, isLetter, EqualFold(b, "k") || sameFold(b, []byte{byte(c) ^ 0x20}), "%q", b)
	}
}
