package static

import (
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/looptest"
)

// largeBytes is more than what is kept in memory of a file.
const largeBytes = 1 << 20

// sizes are of files that are cached, and of files that are sent from the disk.
var cachedAndNot = map[string]int{"small": 1000, "medium": 100_000, "large": largeBytes + 1000}

// parts reads a multipart/byteranges answer.
func parts(t testing.TB, got *looptest.Response) (all []string) {
	t.Helper()
	kind, parameters, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/byteranges", kind)
	assert.Empty(t, got.Header.Get("Content-Range"))
	assert.EqualValues(t, len(got.Text), got.ContentLength)
	r := multipart.NewReader(strings.NewReader(got.Text), parameters["boundary"])
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		text, err := io.ReadAll(part)
		require.NoError(t, err)
		all = append(all, part.Header.Get("Content-Type")+" "+part.Header.Get("Content-Range")+" "+string(text))
	}
}

func TestRange(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range cachedAndNot {
			body := string(looptest.Pattern(size))
			s.write(name+".txt", []byte(body))
			c := s.dial()
			whole := c.ask("GET /" + name + ".txt")
			for _, row := range []struct {
				asked       string
				first, last int
			}{
				{"0-0", 0, 0}, {"0-99", 0, 99}, {"500-", 500, size - 1}, {"-7", size - 7, size - 1}, {"0-", 0, size - 1},
				{"10-100000000", 10, size - 1}, {"-100000000", 0, size - 1}, {"1-1,99999999-", 1, 1},
			} {
				got := c.ask("GET /"+name+".txt", "Range: bytes="+row.asked)
				assert.Equal(s, "206 Partial Content", got.Status, row.asked)
				assert.True(s, body[row.first:row.last+1] == got.Text, "%s: %s", name, row.asked)
				assert.Equal(s, fmt.Sprintf("bytes %d-%d/%d", row.first, row.last, size), got.Header.Get("Content-Range"))
				assert.EqualValues(s, row.last-row.first+1, got.ContentLength)
				for _, field := range []string{"Etag", "Last-Modified", "Content-Type", "Server"} {
					assert.Equal(s, whole.Header.Get(field), got.Header.Get(field), field)
				}
				assert.NotEmpty(s, got.Header.Get("Date"))
			}
			for _, asked := range []string{"bytes=100000000-", "bytes=-0", "bytes=2-1", "bytes=x"} {
				got := c.ask("GET /"+name+".txt", "Range: "+asked)
				assert.Equal(s, 416, got.StatusCode, asked)
				assert.Equal(s, fmt.Sprintf("bytes */%d", size), got.Header.Get("Content-Range"))
			}
			for _, asked := range []string{"lines=0-1", "bytes=0-,0-"} {
				got := c.ask("GET /"+name+".txt", "Range: "+asked)
				assert.Equal(s, 200, got.StatusCode, asked)
				assert.True(s, body == got.Text)
			}
			head := c.ask("HEAD /"+name+".txt", "Range: bytes=0-9")
			assert.Equal(s, 200, head.StatusCode, "ranges are for GET")
			assert.EqualValues(s, size, head.ContentLength)
			require.NoError(s, c.Close())
		}
		s.write("empty", nil)
		assert.Equal(s, 200, s.get("/empty", "Range: bytes=0-").StatusCode)
		assert.Equal(s, 404, s.get("/none", "Range: bytes=0-").StatusCode)
	})
}

func TestMultipleRanges(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range cachedAndNot {
			body := string(looptest.Pattern(size))
			s.write(name+".txt", []byte(body))
			c := s.dial()
			got := c.ask("GET /"+name+".txt", "Range: bytes=0-9, 500-699,-1,99999999-, 5-5")
			assert.Equal(s, 206, got.StatusCode)
			part := func(first, last int) string {
				return fmt.Sprintf("text/plain; charset=utf-8 bytes %d-%d/%d %s", first, last, size, body[first:last+1])
			}
			assert.Equal(s, []string{part(0, 9), part(500, 699), part(size-1, size-1), part(5, 5)}, parts(s, got))

			var many []string
			for i := range rangesMax {
				many = append(many, fmt.Sprintf("%d-%d", i*10, i*10+9))
			}
			got = c.ask("GET /"+name+".txt", "Range: bytes="+strings.Join(many, ","))
			all := parts(s, got)
			require.Len(s, all, rangesMax)
			for i := range many {
				assert.Equal(s, part(i*10, i*10+9), all[i])
			}
			got = c.ask("GET /"+name+".txt", "Range: bytes="+strings.Join(append(many, "1-1"), ","))
			assert.Equal(s, 200, got.StatusCode)
			assert.Len(s, got.Text, size)
			require.NoError(s, c.Close())
		}
		// Parts that are longer than anything that is copied.
		c := s.dial()
		body := string(looptest.Pattern(largeBytes + 1000))
		got := c.ask("GET /large.txt", "Range: bytes=0-399999,400000-999999")
		assert.Len(s, parts(s, got), 2)
		assert.Contains(s, got.Text, body[:400_000])
		assert.Contains(s, got.Text, body[400_000:1_000_000])
	})
}

// Any ranges of any file come to what they say.
func TestRandomRanges(t *testing.T) {
	skipShort(t)
	sites(t, func(s *site) {
		for name, size := range cachedAndNot {
			body := string(looptest.Pattern(size))
			s.write(name, []byte(body))
			random := rand.New(rand.NewPCG(1, uint64(size)))
			c := s.dial()
			for range 100 {
				var asked, want []string
				for range 1 + random.IntN(8) {
					first := random.IntN(size)
					length := 1 + random.IntN(min(size-first, size/8))
					asked = append(asked, fmt.Sprintf("%d-%d", first, first+length-1))
					want = append(want, fmt.Sprintf("%s bytes %d-%d/%d %s", unknownType, first, first+length-1, size,
						body[first:first+length]))
				}
				got := c.ask("GET /"+name, "Range: bytes="+strings.Join(asked, ","))
				require.Equal(s, 206, got.StatusCode, asked)
				if len(asked) == 1 {
					require.True(s, strings.HasSuffix(want[0], got.Text))
				} else {
					require.True(s, strings.Join(want, "\n") == strings.Join(parts(s, got), "\n"), asked)
				}
			}
			require.NoError(s, c.Close())
		}
	})
}

// Requests for parts, and some that fail, are answered in their order on one
// connection, of either version of HTTP.
func TestRangesInPipeline(t *testing.T) {
	sites(t, func(s *site) {
		body := string(looptest.Pattern(largeBytes + 1000))
		s.write("small", []byte(body[:1000]))
		s.write("large", []byte(body))
		c := s.dial()
		var all strings.Builder
		for i := range 30 {
			for _, name := range []string{"small", "large"} {
				fmt.Fprintf(&all, "GET /%s HTTP/1.1\r\nHost: a\r\nRange: bytes=%d-%d\r\n\r\n", name, i, 10*i)
				all.WriteString("GET /" + name + " HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\n\r\n")
				all.WriteString("GET /" + name + " HTTP/1.1\r\nHost: a\r\nIf-Match: \"a\"\r\n\r\n")
			}
		}
		c.Send(all.String())
		for i := range 30 {
			for range 2 {
				got := c.Answer("GET")
				if i == 0 {
					assert.Equal(s, body[:1], got.Text)
				} else {
					assert.Equal(s, body[i:10*i+1], got.Text)
				}
				assert.Len(s, parts(s, c.Answer("GET")), 2)
				assert.Equal(s, 412, c.Answer("GET").StatusCode)
			}
		}
		for name, size := range map[string]int{"small": 1000, "large": len(body)} {
			c = s.dial()
			c.Send("GET /" + name + " HTTP/1.0\r\nRange: bytes=-5\r\n\r\n")
			got := c.Answer("GET")
			assert.Equal(s, 206, got.StatusCode)
			assert.Equal(s, body[size-5:size], got.Text)
			c.End()
		}
	})
}

func TestIfRange(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range cachedAndNot {
			s.write(name, looptest.Pattern(size))
			require.NoError(s, os.Chtimes(filepath.Join(s.root, name), modified, modified))
			c := s.dial()
			first := c.ask("GET /" + name)
			etag, date := first.Header.Get("Etag"), first.Header.Get("Last-Modified")
			for condition, want := range map[string]int{
				etag: 206, date: 206, `"other"`: 200, "W/" + etag: 200, "Mon, 10 Jun 2024 10:00:00 GMT": 200, "soon": 200,
			} {
				got := c.ask("GET /"+name, "Range: bytes=0-4", "If-Range: "+condition)
				assert.Equal(s, want, got.StatusCode, condition)
				assert.Len(s, got.Text, map[int]int{200: size, 206: 5}[want])
			}
			assert.Equal(s, 200, c.ask("GET /"+name, "If-Range: "+etag).StatusCode)
			assert.Equal(s, 304, c.ask("GET /"+name, "Range: bytes=0-4", "If-None-Match: "+etag).StatusCode)
			assert.Equal(s, 412, c.ask("GET /"+name, "Range: bytes=0-4", `If-Match: "a"`).StatusCode)
			require.NoError(s, c.Close())
		}
	})
}

func TestPreconditionFails(t *testing.T) {
	sites(t, func(s *site) {
		for name, size := range cachedAndNot {
			s.write(name, looptest.Pattern(size))
			c := s.dial()
			etag := c.ask("GET /" + name).Header.Get("Etag")
			for _, method := range []string{"GET ", "HEAD "} {
				for _, field := range []string{
					`If-Match: "a"`, "If-Match: W/" + etag, "If-Unmodified-Since: Mon, 10 Jun 2024 10:00:00 GMT",
				} {
					got := c.ask(method+"/"+name, field)
					assert.Equal(s, 412, got.StatusCode, field)
				}
				for _, field := range []string{
					"If-Match: " + etag, `If-Match: "a", ` + etag, "If-Match: *",
					"If-Unmodified-Since: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat),
				} {
					got := c.ask(method+"/"+name, field)
					assert.Equal(s, 200, got.StatusCode, field)
					assert.EqualValues(s, size, got.ContentLength)
				}
			}
			require.NoError(s, c.Close())
		}
		// Where there would be no file, there is nothing to compare with.
		require.NoError(s, os.Mkdir(filepath.Join(s.root, "dir"), 0o755))
		assert.Equal(s, 404, s.get("/none", "If-Match: *").StatusCode)
		assert.Equal(s, 301, s.get("/dir", `If-Match: "a"`).StatusCode)
		assert.Equal(s, 400, s.get("/%zz", `If-Match: "a"`).StatusCode)
	})
}

// Ranges and conditions of a file in memory are answered without the disk.
func TestAskedFromMemory(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("0123456789"))
		c := s.dial()
		etag := c.ask("GET /a").Header.Get("Etag")
		require.NoError(s, os.Remove(filepath.Join(s.root, "a")))
		s.Post(func() { s.handler.cache.get("a").checked = s.Loop.Now().After(time.Hour) })
		assert.Equal(s, "234", c.ask("GET /a", "Range: bytes=2-4").Text)
		assert.Len(s, parts(s, c.ask("GET /a", "Range: bytes=2-4,-1")), 2)
		assert.Equal(s, 416, c.ask("GET /a", "Range: bytes=10-").StatusCode)
		assert.Equal(s, 304, c.ask("GET /a", "If-None-Match: "+etag).StatusCode)
		assert.Equal(s, 412, c.ask("GET /a", `If-Match: "a"`).StatusCode)
	})
}

// A file that becomes shorter while parts of it are sent ends in a reset, be it in
// the middle of a part or between two.
func TestTruncatedWhilePartsAreSent(t *testing.T) {
	const size = 64 << 20
	sites(t, func(s *site) {
		file := filepath.Join(s.root, "large")
		for _, asked := range []string{"1-", "0-9,10-40000000", "0-20000000,30000000-50000000,1-2"} {
			s.write("large", nil)
			require.NoError(s, os.Truncate(file, size))
			c := s.dial()
			require.NoError(s, c.SetReadBuffer(64<<10))
			c.Send("GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=" + asked + "\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n")
			assert.Contains(s, c.Head(), "206 Partial Content")
			require.NoError(s, os.Truncate(file, 1<<20))
			n, err := io.Copy(io.Discard, c.In)
			assert.ErrorIs(s, err, syscall.ECONNRESET, asked)
			assert.Less(s, n, int64(size))
		}
		assert.Zero(s, s.Loop.Counters().Panics.Load())
	})
}

// A file that is not in memory comes as it is, and is not read on the worker.
func TestColdDownload(t *testing.T) {
	sites(t, func(s *site) {
		body := string(looptest.Pattern(8<<20 + 5))
		s.write("large", []byte(body))
		file := filepath.Join(s.root, "large")
		for _, asked := range []string{"bytes=0-", "bytes=5000000-", "bytes=100-200,3000000-7000000"} {
			out := s.Evict(file)
			before := s.Loop.Counters().Cold.Load()
			got := s.get("/large", "Range: "+asked)
			assert.Equal(s, 206, got.StatusCode)
			switch asked {
			case "bytes=0-":
				assert.True(s, body == got.Text)
			case "bytes=5000000-":
				assert.True(s, body[5_000_000:] == got.Text)
			default:
				assert.Contains(s, got.Text, body[100:201])
				assert.True(s, strings.Contains(got.Text, body[3_000_000:7_000_001]))
			}
			if out {
				assert.Greater(s, s.Loop.Counters().Cold.Load(), before)
			}
		}
	})
}
