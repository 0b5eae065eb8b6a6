package static

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/looptest"
)

const allCodings = "Accept-Encoding: gzip, deflate, br, zstd"

// writeCoded writes a file and siblings. What is in them nobody looks at.
func (s *site) writeCoded(name, body string, suffixes ...string) {
	s.Helper()
	s.write(name, []byte(body))
	for _, suffix := range suffixes {
		s.write(name+suffix, []byte(body[:len(body)/2]+suffix))
	}
}

func (s *site) touch(name string, at time.Time) {
	s.Helper()
	require.NoError(s, os.Chtimes(filepath.Join(s.root, name), at, at))
}

func TestSiblings(t *testing.T) {
	test := func(s *site) {
		s.writeCoded("a.js", "0123456789", ".br", ".zst", ".gz")
		s.writeCoded("b.css", "0123456789", ".gz")
		c := s.dial()
		for range 2 { // from the disk, then from memory
			for _, row := range []struct{ target, accept, coding, body string }{
				{"/a.js", "gzip, deflate, br, zstd", "br", "01234.br"},
				{"/a.js", "gzip, zstd", "zstd", "01234.zst"},
				{"/a.js", "gzip", "gzip", "01234.gz"},
				{"/a.js", "br;q=0.1, gzip", "gzip", "01234.gz"},
				{"/a.js", "deflate", "", "0123456789"},
				{"/a.js", "", "", "0123456789"},
				{"/b.css", "gzip, deflate, br, zstd", "gzip", "01234.gz"},
				{"/b.css", "br, zstd", "", "0123456789"},
			} {
				got := c.ask("GET "+row.target, "Accept-Encoding: "+row.accept)
				assert.Equal(s, 200, got.StatusCode)
				assert.Equal(s, row.body, got.Text, "%s %s", row.target, row.accept)
				assert.Equal(s, row.coding, got.Header.Get("Content-Encoding"))
				assert.EqualValues(s, len(row.body), got.ContentLength)
				assert.Equal(s, "Accept-Encoding", got.Header.Get("Vary"))
				assert.Equal(s, typeOf(row.target), got.Header.Get("Content-Type"))

				head := c.ask("HEAD "+row.target, "Accept-Encoding: "+row.accept)
				assert.Equal(s, got.Header.Get("Etag"), head.Header.Get("Etag"))
				assert.Equal(s, got.ContentLength, head.ContentLength)
				part := c.ask("GET "+row.target, "Accept-Encoding: "+row.accept, "Range: bytes=3-5")
				assert.Equal(s, 206, part.StatusCode)
				assert.Equal(s, row.body[3:6], part.Text, "parts are of what is sent")
				assert.Equal(s, row.coding, part.Header.Get("Content-Encoding"))
				assert.Equal(s, "Accept-Encoding", part.Header.Get("Vary"))
				same := c.ask("GET "+row.target, "Accept-Encoding: "+row.accept, "If-None-Match: "+got.Header.Get("Etag"))
				assert.Equal(s, 304, same.StatusCode)
				assert.Equal(s, "Accept-Encoding", same.Header.Get("Vary"))
				assert.Empty(s, same.Header.Get("Content-Encoding"))
			}
		}
		assert.Equal(s, "01234.br", c.ask("GET /a.js", "Accept-Encoding: gzip", "Accept-Encoding: br").Text, "on two lines")
		s.Post(func() { s.handler.cache.check(s) })
	}
	t.Run("cache=on", func(t *testing.T) { sites(t, test) })
	t.Run("cache=off", func(t *testing.T) { sites(t, test, uncached) })
}

// Each representation has a tag of its own, also where size and time are the same:
// what a client has of one is nothing of another.
func TestSiblingsHaveTags(t *testing.T) {
	sites(t, func(s *site) {
		for _, suffix := range suffixes {
			s.write("a"+suffix, []byte("same length"))
			s.touch("a"+suffix, modified)
		}
		c := s.dial()
		tags := make(map[string]bool)
		for _, accept := range []string{"identity", "gzip", "zstd", "br"} {
			tags[c.ask("GET /a", "Accept-Encoding: "+accept).Header.Get("Etag")] = true
		}
		assert.Len(s, tags, 4)
		tag := c.ask("GET /a", "Accept-Encoding: gzip").Header.Get("Etag")
		assert.Equal(s, 200, c.ask("GET /a", "Accept-Encoding: br", "If-None-Match: "+tag).StatusCode)
		assert.Equal(s, 200, c.ask("GET /a", "Range: bytes=0-1", "If-Range: "+tag).StatusCode)
		assert.Equal(s, 412, c.ask("GET /a", "If-Match: "+tag).StatusCode)
		assert.Equal(s, 200, c.ask("GET /a", "Accept-Encoding: gzip", "If-Match: "+tag).StatusCode)
	})
}

func TestNoSiblings(t *testing.T) {
	sites(t, func(s *site) {
		s.write("alone", []byte("alone"))
		s.write("orphan.gz", []byte("nobody"))
		s.writeCoded("old", "0123456789", ".gz")
		s.touch("old.gz", time.Now().Add(-time.Hour))
		s.write("dir.js", []byte("file"))
		require.NoError(s, os.Mkdir(filepath.Join(s.root, "dir.js.gz"), 0o755))
		s.write("linked", []byte("file"))
		secret := filepath.Join(s.TempDir(), "secret")
		require.NoError(s, os.WriteFile(secret, []byte("secret"), 0o644))
		require.NoError(s, os.Symlink(secret, filepath.Join(s.root, "linked.gz")))
		c := s.dial()
		for range 2 {
			for name, want := range map[string]string{"alone": "alone", "old": "0123456789", "dir.js": "file", "linked": "file"} {
				got := c.ask("GET /"+name, allCodings)
				assert.Equal(s, want, got.Text)
				assert.Empty(s, got.Header.Get("Content-Encoding"), name)
				assert.Empty(s, got.Header.Get("Vary"), name)
			}
		}
		assert.Equal(s, 404, c.ask("GET /orphan", allCodings).StatusCode, "a sibling stands for a file, not in its place")
		got := c.ask("GET /orphan.gz", allCodings)
		assert.Equal(s, "nobody", got.Text)
		assert.Equal(s, "application/gzip", got.Header.Get("Content-Type"))
		assert.Empty(s, got.Header.Get("Content-Encoding"))
	})
}

func TestSiblingsOff(t *testing.T) {
	sites(t, func(s *site) {
		s.writeCoded("a.js", "0123456789", ".br", ".gz")
		got := s.get("/a.js", allCodings)
		assert.Equal(s, "0123456789", got.Text)
		assert.Empty(s, got.Header.Get("Vary"))
	}, func(set *settings) { set.static.Precompressed = false })
}

func TestSiblingOfIndex(t *testing.T) {
	sites(t, func(s *site) {
		s.writeCoded("a/index.html", "0123456789", ".br")
		for range 2 {
			got := s.get("/a/", allCodings)
			assert.Equal(s, "01234.br", got.Text)
			assert.Equal(s, "text/html; charset=utf-8", got.Header.Get("Content-Type"))
		}
	})
}

// Either one may be too large for memory, and the other not.
func TestLargeSiblings(t *testing.T) {
	sites(t, func(s *site) {
		large, small := looptest.Pattern(blindBytesMax+1), []byte("small")
		s.write("a", large)
		s.write("a.gz", small)
		s.write("b", large)
		s.write("b.gz", large[1:])
		s.write("c", small)
		s.write("c.gz", large)
		c := s.dial()
		for range 3 {
			for name, want := range map[string][2][]byte{"a": {large, small}, "b": {large, large[1:]}, "c": {small, large}} {
				for i, accept := range []string{"identity", "gzip"} {
					got := c.ask("GET /"+name, "Accept-Encoding: "+accept)
					assert.True(s, string(want[i]) == got.Text, "%s %s", name, accept)
					assert.Equal(s, "Accept-Encoding", got.Header.Get("Vary"))
				}
			}
		}
		s.Post(func() { s.handler.cache.check(s) })
	})
}

// A sibling that comes, changes or goes is seen about a second later, and so is a
// file that leaves its siblings behind.
func TestSiblingsChange(t *testing.T) {
	skipShort(t)
	sites(t, func(s *site) {
		path := func(name string) string { return filepath.Join(s.root, name) }
		names := []string{"comes", "changes", "goes", "ages", "file-goes"}
		for _, name := range names {
			s.writeCoded(name, "0123456789", ".gz")
		}
		require.NoError(s, os.Remove(path("comes.gz")))
		c := s.dial()
		is := func(name string, status int, body, vary string) bool {
			got := c.ask("GET /"+name, allCodings)
			return got.StatusCode == status && (status != 200 || got.Text == body && got.Header.Get("Vary") == vary)
		}
		for _, name := range names[1:] {
			require.True(s, is(name, 200, "01234.gz", "Accept-Encoding"), name)
		}
		require.True(s, is("comes", 200, "0123456789", ""))

		s.write("comes.gz", []byte("here"))
		s.write("changes.gz", []byte("other"))
		require.NoError(s, os.Remove(path("goes.gz")))
		s.touch("ages", time.Now().Add(time.Hour))
		require.NoError(s, os.Remove(path("file-goes")))
		s.Eventually("a new sibling", func() bool { return is("comes", 200, "here", "Accept-Encoding") })
		s.Eventually("another sibling", func() bool { return is("changes", 200, "other", "Accept-Encoding") })
		s.Eventually("no sibling", func() bool { return is("goes", 200, "0123456789", "") })
		s.Eventually("an old sibling", func() bool { return is("ages", 200, "0123456789", "") })
		s.Eventually("no file", func() bool { return is("file-goes", 404, "", "") })
		s.Post(func() { s.handler.cache.check(s) })
	})
}

// Files and siblings come and go under many requests: each answer is one that was
// there, under its own coding and tag.
func TestSiblingsUnderLoad(t *testing.T) {
	skipShort(t)
	sites(t, func(s *site) {
		const versions = 60
		body := func(version int, coding string) string {
			return fmt.Sprintf("%s %d %s", coding, version, strings.Repeat("x", version))
		}
		replace := func(version int) {
			for suffix, coding := range map[string]string{"": "", ".br": "br", ".gz": "gzip"} {
				if suffix != "" && version%3 == 0 {
					_ = os.Remove(filepath.Join(s.root, "a"+suffix))
					continue
				}
				s.write("new", []byte(body(version, coding)))
				require.NoError(s, os.Rename(filepath.Join(s.root, "new"), filepath.Join(s.root, "a"+suffix)))
			}
		}
		replace(1)
		c := s.dial()
		tags := make(map[string]string)
		for version := range versions {
			replace(version + 1)
			for i := range 6 {
				if i%2 == 0 {
					s.Post(func() {
						if r := s.handler.cache.get("a"); r != nil {
							r.checked = 1
						}
					})
				}
				got := c.ask("GET /a", []string{"Accept-Encoding: br", "Accept-Encoding: gzip", "X: y"}[i%3])
				require.Equal(s, 200, got.StatusCode)
				coding, _, _ := strings.Cut(got.Text, " ")
				require.Equal(s, coding, got.Header.Get("Content-Encoding"))
				tag := got.Header.Get("Etag")
				if text, seen := tags[tag]; seen {
					require.Equal(s, text, got.Text, "two contents under one tag")
				}
				tags[tag] = got.Text
			}
		}
		s.Post(func() { s.handler.cache.check(s) })
	})
}
