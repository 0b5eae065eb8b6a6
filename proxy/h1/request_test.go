package h1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLimits(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		input  string
		want   string // reason, or "" if the head is accepted
	}{
		{"defaults", Limits{}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"head exactly", Limits{HeadBytes: 27}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"head one less", Limits{HeadBytes: 26}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "head-long"},
		{"head incomplete and full", Limits{HeadBytes: 20}, "GET / HTTP/1.1\r\nHost", "head-long"},
		{"head incomplete", Limits{HeadBytes: 21}, "GET / HTTP/1.1\r\nHost", "short"},
		{"line exactly", Limits{LineBytes: 16}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"line one less", Limits{LineBytes: 15}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "line-long"},
		{"line beyond head", Limits{HeadBytes: 10, LineBytes: 20}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "head-long"},
		{"fault before the limit", Limits{LineBytes: 15}, "GET /\x00HTTP/1.1\r\nHost: a\r\n\r\n", "target"},
		{"fields exactly", Limits{Fields: 1}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"fields one more", Limits{Fields: 1}, "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n", "fields-many"},
		{"fields cannot be raised", Limits{Fields: 1000},
			"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a:b\r\n", FieldsMax) + "\r\n", "fields-many"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := &Request{Limits: test.limits}
			n, err := ParseRequest([]byte(test.input), req)
			if test.want == "" {
				require.NoError(t, err)
				assert.Equal(t, len(test.input), n)
				return
			}
			assert.Zero(t, n)
			assert.Equal(t, test.want, reasonOf(err))
		})
	}
}

// reasonOf is the label of a refusal, "short" for ErrShort, "" for nil.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if refused, ok := err.(*SyntaxError); ok {
		return refused.Reason.String()
	}
	return "short"
}

// TestRequestIsReused: nothing of an earlier request shows after a later one, whatever became of it.
func TestRequestIsReused(t *testing.T) {
	const full = "OPTIONS http://a/p?q HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x-odd, cookie\r\nUpgrade: h2c\r\nTE: trailers\r\n" +
		"Expect: 100-continue\r\nExpect: more\r\nTransfer-Encoding: chunked\r\n\r\n"
	const plain = "GET / HTTP/1.0\r\nCookie: c\r\nX-Odd: d\r\n\r\n"
	req := new(Request)
	_, err := ParseRequest([]byte(full), req)
	require.NoError(t, err)
	require.True(t, req.Upgrade && req.TETrailers && req.Expect100 && req.ExpectOther && req.KeepAlive)

	_, err = ParseRequest([]byte(plain), req)
	require.NoError(t, err)
	fresh := new(Request)
	_, err = ParseRequest([]byte(plain), fresh)
	require.NoError(t, err)
	clear(req.fields[req.count:])
	assert.True(t, assert.ObjectsAreEqual(fresh, req))

	for _, input := range []string{"", "GET", "G\x00"} {
		_, err = ParseRequest([]byte(full), req)
		require.NoError(t, err)
		_, err = ParseRequest([]byte(input), req)
		require.Error(t, err)
		clear(req.fields[:])
		assert.True(t, assert.ObjectsAreEqual(new(Request), req), "after %q", input)
	}
}

// TestRequestLineAfterError: the request line of a refused request is there for the log.
func TestRequestLineAfterError(t *testing.T) {
	req := new(Request)
	_, err := ParseRequest([]byte("HEAD /a HTTP/1.1\r\nHost : b\r\n\r\n"), req)
	require.Error(t, err)
	assert.Equal(t, "HEAD", string(req.MethodName))
	assert.Equal(t, MethodHead, req.Method)
	assert.Equal(t, "/a", string(req.Target))
	assert.Empty(t, req.Fields())
	assert.Nil(t, req.Value(KeyHost))
}

func TestMethod(t *testing.T) {
	for m := MethodConnect; m <= MethodTrace; m++ {
		assert.Equal(t, m, methodOf([]byte(m.String())))
	}
	assert.Equal(t, MethodOther, methodOf([]byte("QUERY")))
	assert.Empty(t, MethodOther.String())
	assert.Empty(t, Method(200).String())
	for m, want := range map[Method][2]bool{
		MethodGet: {true, true}, MethodHead: {true, true}, MethodOptions: {true, true}, MethodTrace: {true, true},
		MethodPut: {false, true}, MethodDelete: {false, true},
		MethodPost: {false, false}, MethodPatch: {false, false}, MethodConnect: {false, false}, MethodOther: {false, false},
	} {
		assert.Equal(t, want, [2]bool{m.Safe(), m.Idempotent()}, m.String())
	}
}

func TestValue(t *testing.T) {
	req := new(Request)
	_, err := ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nCookie: 1\r\nAccept:\r\nCookie: 2\r\n\r\n"), req)
	require.NoError(t, err)
	assert.Equal(t, "1", string(req.Value(KeyCookie)))
	assert.True(t, req.Has(KeyAccept))
	assert.NotNil(t, req.Value(KeyAccept))
	assert.Empty(t, req.Value(KeyAccept))
	assert.False(t, req.Has(KeyRange))
	assert.Nil(t, req.Value(KeyRange))
}

// TestLists: trailer fields are asked for by name, and a name with a key by its key.
func TestLists(t *testing.T) {
	req := new(Request)
	_, err := ParseRequest([]byte("POST / HTTP/1.1\r\nHost: a\r\nConnection: x-sum, etag, host\r\n\r\n"), req)
	require.NoError(t, err)
	trailer := new(Trailer)
	_, err = ParseTrailer([]byte("X-Sum: 1\r\nETag: 2\r\nX-Other: 3\r\n\r\n"), trailer)
	require.NoError(t, err)
	for i, want := range []bool{true, true, false} {
		assert.Equal(t, want, req.Lists(&trailer.Fields()[i]), "field %d", i)
		assert.False(t, trailer.HopByHop(i))
	}
	assert.False(t, req.Lists(&req.Fields()[0]), "Host is never removed")
}

// TestSlicesAlias is the contract of Request: its slices are the bytes that were parsed, and an append to one of them
// does not write over its neighbours.
func TestSlicesAlias(t *testing.T) {
	b := []byte("GET http://a.example/p?q HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\nAccept: c\r\n\r\nrest")
	req := new(Request)
	n, err := ParseRequest(b, req)
	require.NoError(t, err)
	slices := map[string]*[]byte{
		"method": &req.MethodName, "target": &req.Target, "path": &req.Path, "query": &req.Query,
		"scheme": &req.Scheme, "authority": &req.Authority, "host": &req.Host,
	}
	for i := range req.Fields() {
		f := &req.Fields()[i]
		slices[fmt.Sprint("name ", i)], slices[fmt.Sprint("value ", i)] = &f.Name, &f.Value
	}
	want := map[string]string{}
	for name, s := range slices {
		require.NotEmpty(t, *s, name)
		want[name] = strings.ToUpper(string(*s))
		_ = append(*s, "overwritten"...)
	}
	require.Equal(t, "rest", string(b[n:]))
	require.NotContains(t, string(b), "overwritten")

	copy(b, strings.ToUpper(string(b)))
	for name, s := range slices {
		assert.Equal(t, want[name], string(*s), name)
	}
}

// TestLookup: every name is found in any case, alone and in a head, and nothing that differs in a byte is.
func TestLookup(t *testing.T) {
	keys := map[string]Key{}
	for _, name := range commonNames {
		keys[name] = KeyOther
	}
	for k := KeyUnderscore + 1; k < keyCount; k++ {
		require.NotEmpty(t, k.String())
		keys[k.String()] = k
	}
	require.Len(t, keys, len(commonNames)+int(keyCount)-2, "no name twice")
	for name, key := range keys {
		for _, spelling := range []string{name, strings.ToUpper(name)} {
			got, known := lookup([]byte(spelling))
			assert.True(t, known, spelling)
			assert.Equal(t, key, got, spelling)
			colon, s := findKey([]byte(spelling + ":       "))
			assert.Equal(t, len(name), colon, spelling)
			require.NotNil(t, s, spelling)
			assert.Equal(t, key, s.key, spelling)
		}
		for i := range name {
			for bit := range 8 {
				other := []byte(name)
				other[i] ^= 1 << bit
				_, known := lookup(other)
				_, isName := keys[strings.ToLower(string(other))]
				assert.Equal(t, isName, known, "%q", other)
			}
		}
	}
	for _, name := range []string{"", "x", strings.Repeat("x", 200)} {
		_, known := lookup([]byte(name))
		assert.False(t, known, name)
	}
	assert.Empty(t, Key(200).String())
	assert.LessOrEqual(t, int(keyCount), 64, "a keySet has 64 bits")
}

// TestWords compares the tests of eight bytes with the table of classes, each byte in each place.
func TestWords(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			for _, filler := range []byte{'a', 0xff, ' ', '~'} {
				b := []byte{filler, filler, filler, filler, filler, filler, filler, filler}
				b[at] = byte(c)
				fillerStops := class[filler]&classTarget == 0
				wantValue, wantTarget := 8, 8
				if class[c]&classValue == 0 {
					wantValue = at
				}
				if class[c]&classTarget == 0 {
					wantTarget = at
				}
				if fillerStops && at > 0 {
					wantTarget = 0
				} else if fillerStops && wantTarget == 8 {
					wantTarget = 1
				}
				require.Equal(t, wantValue, scanValue(b), "%q", b)
				require.Equal(t, wantTarget, scanTarget(b), "%q", b)
				require.Equal(t, wantValue, scanValue(b[:8:8]))
				require.Equal(t, equalBytes(load(b), byte(c)&0x7f)>>(8*at)&0x80 != 0, c < 0x80)
			}
		}
	}
}
