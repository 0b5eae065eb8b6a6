package static

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// modified is when the files of these tests were: a second that has a fraction.
var modified = time.Date(2024, 6, 11, 10, 0, 0, 123456789, time.UTC)

func makeEntry(name string, bodyBytes int) *entry {
	stat := loop.Stat{Size: int64(bodyBytes), ModTime: modified, Regular: true}
	return newEntry(name, name, stat, make([]byte, bodyBytes), 1)
}

// check finds what is wrong with a cache in itself.
func (c *cache) check(t testing.TB) {
	t.Helper()
	require.LessOrEqual(t, c.bytes, c.bytesMax)
	require.Len(t, c.byName, len(c.clock))
	var bytes int64
	for i, e := range c.clock {
		require.Equal(t, i, e.place)
		require.Same(t, e, c.byName[e.name])
		bytes += e.bytes()
	}
	require.Equal(t, bytes, c.bytes)
}

func TestCacheFinds(t *testing.T) {
	c := &cache{bytesMax: 10_000}
	assert.Nil(t, c.find([]byte("a")), "nothing is in it yet")
	a := makeEntry("a", 100)
	c.add(a)
	assert.Same(t, a, c.find([]byte("a")))
	assert.Same(t, a, c.get("a"))
	assert.Nil(t, c.find([]byte("A")))
	assert.Nil(t, c.find(nil))
	c.check(t)
	c.drop("b")
	c.drop("a")
	assert.Nil(t, c.get("a"))
	assert.Zero(t, c.bytes)
	c.check(t)
}

func TestCacheReplaces(t *testing.T) {
	c := &cache{bytesMax: 10_000}
	c.add(makeEntry("a", 100))
	c.add(makeEntry("b", 100))
	longer := makeEntry("a", 2000)
	c.add(longer)
	assert.Same(t, longer, c.get("a"))
	assert.Len(t, c.clock, 2)
	c.check(t)
	c.add(makeEntry("a", 20_000))
	assert.Nil(t, c.get("a"), "the file is too large now, and what was there before is old")
	assert.NotNil(t, c.get("b"))
	c.check(t)
}

// An entry that was used since the hand passed stays for another round; of the
// rest the first one goes.
func TestCacheEvictsByClock(t *testing.T) {
	one := makeEntry("0", 1000).bytes()
	c := &cache{bytesMax: 4 * one}
	names := func() string {
		var all []string
		for i := range 10 {
			if name := fmt.Sprint(i); c.get(name) != nil {
				all = append(all, name)
			}
		}
		return strings.Join(all, "")
	}
	for i := range 4 {
		c.add(makeEntry(fmt.Sprint(i), 1000))
	}
	assert.Equal(t, "0123", names())
	c.find([]byte("0"))
	c.find([]byte("2"))
	c.add(makeEntry("4", 1000))
	assert.Equal(t, "0234", names(), "1 was the first unused one")
	c.add(makeEntry("5", 1000))
	c.check(t)
	assert.NotNil(t, c.get("5"))
	assert.Len(t, c.clock, 4)
	for _, e := range c.clock {
		e.used = true
	}
	c.add(makeEntry("6", 1000))
	assert.NotNil(t, c.get("6"), "all others were used: one goes all the same")
	assert.Len(t, c.clock, 4)
	c.check(t)
}

func TestCacheOfNoBytes(t *testing.T) {
	c := &cache{}
	c.add(makeEntry("a", 0))
	assert.Nil(t, c.get("a"))
	c.check(t)
}

// A cache that is used at random stays within its bytes, knows what it has, and
// finds the newest entry of a name or none.
func TestCacheInvariants(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := &cache{bytesMax: int64(random.IntN(50_000))}
		newest := make(map[string]*entry)
		for range 2000 {
			name := fmt.Sprint(random.IntN(40))
			switch random.IntN(4) {
			case 0:
				e := makeEntry(name, random.IntN(1<<random.IntN(16)))
				newest[name] = e
				c.add(e)
				if e.bytes() <= c.bytesMax {
					require.Same(t, e, c.get(name), "seed %d", seed)
				}
			case 1:
				c.drop(name)
				require.Nil(t, c.get(name))
			default:
				if e := c.find([]byte(name)); e != nil {
					require.Same(t, newest[name], e, "seed %d", seed)
				}
			}
			c.check(t)
		}
	}
}

func TestEntry(t *testing.T) {
	body := []byte("hello")
	e := newEntry("a/", "a/index.html", loop.Stat{Size: 5, ModTime: modified, Regular: true}, body, 7)
	body[0] = 'X'
	common := "Server: atlas\r\nLast-Modified: Tue, 11 Jun 2024 10:00:00 GMT\r\nETag: " + e.etag + "\r\n"
	assert.Equal(t, "HTTP/1.1 200 OK\r\n"+common+"Content-Type: text/html; charset=utf-8\r\nContent-Length: 5\r\n", string(e.head))
	assert.Equal(t, "HTTP/1.1 304 Not Modified\r\n"+common, string(e.headUnchanged))
	assert.Equal(t, "\r\nhello", string(e.tail))
	assert.Equal(t, loop.Instant(7), e.checked)

	etags := map[string]bool{e.etag: true}
	for _, stat := range []loop.Stat{
		{Size: 6, ModTime: modified}, {Size: 5, ModTime: modified.Add(1)}, {Size: 5}, {Size: 5, ModTime: time.Unix(-1, 0)},
	} {
		other := newEntry("", "x", stat, nil, 0)
		assert.Regexp(t, `^"[0-9a-f-]+"$`, other.etag)
		assert.False(t, etags[other.etag], "another version has another tag")
		etags[other.etag] = true
	}
}

func TestEntryContentType(t *testing.T) {
	for file, want := range map[string]string{
		"a.html":       "text/html; charset=utf-8",
		"a.HTML":       "text/html; charset=utf-8",
		"a.css":        "text/css; charset=utf-8",
		"b.a/c.png":    "image/png",
		"a.tar.pdf":    "application/pdf",
		"none":         "application/octet-stream",
		"a.png/none":   "application/octet-stream",
		"a.":           "application/octet-stream",
		"a.nobody-has": "application/octet-stream",
		"":             "application/octet-stream",
	} {
		e := newEntry("", file, loop.Stat{ModTime: modified}, nil, 0)
		assert.Contains(t, string(e.head), "\r\nContent-Type: "+want+"\r\n", file)
	}
}

// A date of a file that no HTTP date can show must not break the head.
func TestEntryStrangeDates(t *testing.T) {
	for _, year := range []int{-5, 1, 1901, 1969, 1970, 2038, 9999, 12345} {
		stat := loop.Stat{ModTime: time.Date(year, 1, 2, 3, 4, 5, 6, time.UTC), Regular: true}
		e := newEntry("a", "a", stat, nil, 0)
		assert.Equal(t, 6, bytes.Count(e.head, []byte("\r\n")), "%d: %q", year, e.head)
		var resp h1.Response
		_, err := h1.ParseResponse(append(bytes.Clone(e.head), "\r\n"...), &resp)
		assert.NoError(t, err)
	}
}

func TestUnchanged(t *testing.T) {
	const etag = `"5-17d7f2"`
	second := modified.Unix()
	date := func(unix int64) string { return string(h1.AppendDate(nil, unix)) }
	for _, row := range []struct {
		name, fields string
		want         bool
	}{
		{"nothing asked", "", false},
		{"the tag", `If-None-Match: "5-17d7f2"`, true},
		{"another tag", `If-None-Match: "5-17d7f3"`, false},
		{"the tag, weak", `If-None-Match: W/"5-17d7f2"`, true},
		{"w is another thing than W", `If-None-Match: w/"5-17d7f2"`, false},
		{"the tag without its quotes", `If-None-Match: 5-17d7f2`, false},
		{"a list with the tag", `If-None-Match: "a", W/"b" ,"5-17d7f2"`, true},
		{"a list without", `If-None-Match: "a", "b"`, false},
		{"a tag with commas in it", `If-None-Match: "a,\"5-17d7f2\",b"`, false},
		{"any tag", `If-None-Match: *`, true},
		{"no tag at all", `If-None-Match:`, false},
		{"the second of its date", "If-Modified-Since: " + date(second), true},
		{"a second before", "If-Modified-Since: " + date(second-1), false},
		{"a later date", "If-Modified-Since: " + date(second+3600), true},
		{"no date", "If-Modified-Since: yesterday", false},
		{"the tag outranks the date", "If-None-Match: \"5-17d7f2\"\r\nIf-Modified-Since: " + date(second-1), true},
		{"another tag outranks the date", "If-None-Match: \"a\"\r\nIf-Modified-Since: " + date(second), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			head := "GET / HTTP/1.1\r\nHost: a\r\n"
			if row.fields != "" {
				head += row.fields + "\r\n"
			}
			text := []byte(head + "\r\n")
			var r h1.Request
			_, err := h1.ParseRequest(text, &r)
			require.NoError(t, err)
			cond := takeConditions(&r)
			clear(text) // the head is given back before they are looked at
			assert.Equal(t, row.want, cond.unchanged(etag, modified))
		})
	}
}
