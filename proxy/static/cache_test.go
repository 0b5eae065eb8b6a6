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

func makeResource(name string, bodyBytes int) *resource {
	stat := loop.Stat{Size: int64(bodyBytes), ModTime: modified, Regular: true}
	r := &resource{name: name, file: name, checked: 1}
	r.versions[identity] = stat
	r.entries[identity] = newEntry(name, identity, false, stat, make([]byte, bodyBytes))
	return r
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
	a := makeResource("a", 100)
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
	c.add(makeResource("a", 100))
	c.add(makeResource("b", 100))
	longer := makeResource("a", 2000)
	c.add(longer)
	assert.Same(t, longer, c.get("a"))
	assert.Len(t, c.clock, 2)
	c.check(t)
	c.add(makeResource("a", 20_000))
	assert.Nil(t, c.get("a"), "the file is too large now, and what was there before is old")
	assert.NotNil(t, c.get("b"))
	c.check(t)
}

// An entry that was used since the hand passed stays for another round; of the
// rest the first one goes.
func TestCacheEvictsByClock(t *testing.T) {
	one := makeResource("0", 1000).bytes()
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
		c.add(makeResource(fmt.Sprint(i), 1000))
	}
	assert.Equal(t, "0123", names())
	c.find([]byte("0"))
	c.find([]byte("2"))
	c.add(makeResource("4", 1000))
	assert.Equal(t, "0234", names(), "1 was the first unused one")
	c.add(makeResource("5", 1000))
	c.check(t)
	assert.NotNil(t, c.get("5"))
	assert.Len(t, c.clock, 4)
	for _, e := range c.clock {
		e.used = true
	}
	c.add(makeResource("6", 1000))
	assert.NotNil(t, c.get("6"), "all others were used: one goes all the same")
	assert.Len(t, c.clock, 4)
	c.check(t)
}

func TestCacheOfNoBytes(t *testing.T) {
	c := &cache{}
	c.add(makeResource("a", 0))
	assert.Nil(t, c.get("a"))
	c.check(t)
}

// A cache that is used at random stays within its bytes, knows what it has, and
// finds the newest entry of a name or none.
func TestCacheInvariants(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := &cache{bytesMax: int64(random.IntN(50_000))}
		newest := make(map[string]*resource)
		for range 2000 {
			name := fmt.Sprint(random.IntN(40))
			switch random.IntN(4) {
			case 0:
				e := makeResource(name, random.IntN(1<<random.IntN(16)))
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
	e := newEntry("a/index.html", identity, false, loop.Stat{Size: 5, ModTime: modified, Regular: true}, body)
	body[0] = 'X'
	common := "Server: atlas\r\nLast-Modified: Tue, 11 Jun 2024 10:00:00 GMT\r\nETag: " + e.etag + "\r\n"
	assert.Equal(t, "HTTP/1.1 200 OK\r\n"+common+
		"Content-Type: text/html; charset=utf-8\r\nAccept-Ranges: bytes\r\nContent-Length: 5\r\n", string(e.head))
	assert.Equal(t, "HTTP/1.1 304 Not Modified\r\n"+common, string(e.headUnchanged))
	assert.Equal(t, common, string(e.common))
	assert.Equal(t, "\r\nhello", string(e.tail))

	coded := newEntry("a/index.html", brotli, true, e.stat, body)
	common = strings.Replace(common, e.etag, coded.etag, 1) + "Vary: Accept-Encoding\r\n"
	assert.Equal(t, "HTTP/1.1 200 OK\r\n"+common+"Content-Encoding: br\r\n"+
		"Content-Type: text/html; charset=utf-8\r\nAccept-Ranges: bytes\r\nContent-Length: 5\r\n", string(coded.head))
	assert.Equal(t, "HTTP/1.1 304 Not Modified\r\n"+common, string(coded.headUnchanged))
	assert.Equal(t, common+"Content-Encoding: br\r\n", string(coded.common))

	etags := map[string]bool{e.etag: true}
	for c := identity; c < codings; c++ {
		for _, stat := range []loop.Stat{
			{Size: 6, ModTime: modified}, {Size: 5, ModTime: modified.Add(1)}, {Size: 5}, {Size: 5, ModTime: time.Unix(-1, 0)},
		} {
			other := newEntry("x", c, true, stat, nil)
			assert.Regexp(t, `^"[0-9a-z-]+"$`, other.etag)
			assert.False(t, etags[other.etag], "another version has another tag")
			etags[other.etag] = true
		}
	}
}

// A resource brings along what an older one has in memory, if nothing of the file
// and its siblings has changed.
func TestAdopt(t *testing.T) {
	old, r := makeResource("a", 10), makeResource("a", 10)
	r.entries[brotli], r.entries[identity] = r.entries[identity], nil
	r.adopt(old)
	assert.Same(t, old.entries[identity], r.entries[identity])
	assert.NotNil(t, r.entries[brotli])
	before := r.bytes()
	old.versions[gzip] = loop.Stat{Size: 1, Regular: true}
	old.entries[zstd] = old.entries[identity]
	r.adopt(old)
	r.adopt(nil)
	assert.Equal(t, before, r.bytes())
	assert.Nil(t, r.entries[zstd])
}

// A date of a file that no HTTP date can show must not break the head.
func TestEntryStrangeDates(t *testing.T) {
	for _, year := range []int{-5, 1, 1901, 1969, 1970, 2038, 9999, 12345} {
		stat := loop.Stat{ModTime: time.Date(year, 1, 2, 3, 4, 5, 6, time.UTC), Regular: true}
		e := newEntry("a", identity, false, stat, nil)
		assert.Equal(t, 7, bytes.Count(e.head, []byte("\r\n")), "%d: %q", year, e.head)
		var resp h1.Response
		_, err := h1.ParseResponse(append(bytes.Clone(e.head), "\r\n"...), &resp)
		assert.NoError(t, err)
	}
}
