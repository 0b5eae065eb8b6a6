package static

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// resting is the files that rest now, oldest first.
func (s *site) resting() (files []*loop.File) {
	s.Post(func() {
		for _, r := range s.handler.cache.resting {
			files = append(files, r.file)
		}
	})
	return files
}

// rests waits for the only file that rests: a client may have its answer a moment
// before who sent it gives the file back.
func (s *site) rests() (file *loop.File) {
	s.Helper()
	s.Eventually("a file that rests", func() bool {
		files := s.resting()
		if len(files) == 1 {
			file = files[0]
		}
		return len(files) == 1
	})
	return file
}

// keepResting has files rest for as long as a test takes, however slow the machine
// is; the next one that comes to rest after keepResting(false) ends that.
func (s *site) keepResting(keep bool) {
	s.Post(func() { s.handler.closer = keep }) // who finds a task at it starts none
}

// A file too large for memory stays open for the next request, and no longer than
// there is one a second.
func TestFilesRest(t *testing.T) {
	sites(t, func(s *site) {
		body := string(looptest.Pattern(blindBytesMax + 1))
		s.write("a", []byte(body))
		s.keepResting(true)
		c := s.dial()
		assert.True(s, c.ask("GET /a").Text == body)
		first := s.rests()
		for _, field := range []string{"Range: bytes=5-8", "If-None-Match: *", "Accept-Encoding: gzip"} {
			c.ask("GET /a", field)
			c.ask("HEAD /a", field)
			assert.Same(s, first, s.rests(), "the same file after %q", field)
		}
		s.keepResting(false)
		assert.True(s, c.ask("GET /a").Text == body)
		s.Eventually("closed files", func() bool { return len(s.resting()) == 0 })
		s.keepResting(true)
		assert.True(s, c.ask("GET /a").Text == body)
		s.rests() // and again
	})
}

// Requests at once have a file each.
func TestFilesRestApart(t *testing.T) {
	sites(t, func(s *site) {
		body := string(looptest.Pattern(blindBytesMax + 1))
		s.write("a", []byte(body))
		s.get("/a")
		const clients = 4
		var all [clients]*client
		for range 5 {
			for i := range all {
				if all[i] == nil {
					all[i] = s.dial()
				}
				all[i].Send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			for _, c := range all {
				assert.True(s, c.Answer("GET").Text == body)
			}
		}
		assert.LessOrEqual(s, len(s.resting()), clients+1)
	})
}

// What changes under a file that rests is seen: its content at once, another file
// of its name within a second.
func TestRestingFileChanges(t *testing.T) {
	sites(t, func(s *site) {
		old := string(looptest.Pattern(blindBytesMax + 1))
		s.write("a", []byte(old))
		s.keepResting(true)
		require.True(s, s.get("/a").Text == old)
		s.rests()
		s.write("a", []byte(old+"more"))
		assert.True(s, s.get("/a").Text == old+"more", "written")
		require.NoError(s, os.Truncate(filepath.Join(s.root, "a"), blindBytesMax+1))
		assert.True(s, s.get("/a").Text == old, "shorter, but large")
		require.NoError(s, os.Truncate(filepath.Join(s.root, "a"), 10))
		assert.Equal(s, old[:10], s.get("/a").Text, "small now")

		s.write("a", []byte(old))
		s.Eventually("a large one again", func() bool { return s.get("/a").Text == old })
		s.write("b", []byte("b"+old))
		require.NoError(s, os.Rename(filepath.Join(s.root, "b"), filepath.Join(s.root, "a")))
		s.Eventually("a replaced file", func() bool { return s.get("/a").Text == "b"+old })
		require.NoError(s, os.Remove(filepath.Join(s.root, "a")))
		s.Eventually("a removed file", func() bool { return s.get("/a").StatusCode == 404 })
	})
}

// A worker that drains does not wait until the files that rest are due. It has
// several goes, as the time that a loaded machine takes is not what this is about.
func TestRestingFilesInDrain(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for range 10 {
			s := newSite(t, engine)
			s.write("a", looptest.Pattern(blindBytesMax+1))
			began := time.Now()
			s.get("/a")
			s.Loop.Drain()
			s.Loop.Wait()
			assert.Empty(t, s.handler.cache.resting)
			if time.Since(began) < freshFor {
				return
			}
		}
		t.Error("a drain waits for files that rest")
	})
}

// However many files there are, few of them rest; and none where nothing is to be
// remembered.
func TestRestingIsBounded(t *testing.T) {
	sites(t, func(s *site) {
		s.keepResting(true)
		c := s.dial()
		for i := range restingMax + 5 {
			name := fmt.Sprint("f", i)
			s.write(name, looptest.Pattern(blindBytesMax+1))
			c.ask("GET /" + name)
			assert.LessOrEqual(s, len(s.resting()), restingMax)
		}
		assert.NotEmpty(s, s.resting())
	})
	sites(t, func(s *site) {
		s.write("a", looptest.Pattern(blindBytesMax+1))
		s.get("/a")
		assert.Empty(s, s.resting())
	}, uncached)
}
