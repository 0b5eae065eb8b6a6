package static

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"atlas/proxy/looptest"
)

var update = flag.Bool("update", false, "record testdata/nginx/corpus.txtar again, with nginx")

const corpusFile = "testdata/nginx/corpus.txtar"

// difference is where we do not answer as nginx does, and why not. What ours has
// stands in ours, line by line.
type difference struct {
	cases []string
	ours  string
	why   string
}

var differences = []difference{
	{[]string{"method/post", "method/delete", "method/options", "range/of a post"}, "405\nAllow: GET, HEAD",
		"RFC 9110 section 15.5.6: a 405 MUST have Allow."},
	{[]string{"redirect/a directory", "redirect/with a condition that fails", "range/of a directory"}, "301\nLocation: /dir/",
		"A relative reference (RFC 9110 section 10.2.2) is right behind any proxy, TLS terminator and port mapping; " +
			"nginx has absolute_redirect off for it."},
	{[]string{"redirect/a directory with a query"}, "301\nLocation: /dir/?a=b", "The same."},
	{[]string{"index/a directory without one"}, "404",
		"There is nothing to be listed, and nothing that anybody could be allowed to see."},

	{[]string{"head/a range", "head/a range that is not there"}, "200\nContent-Length: 100",
		"RFC 9110 section 14.2: a server MUST ignore Range with any method but GET."},
	{[]string{"range/with white space inside"}, "416", "RFC 9110 section 14.1.2 has no white space in int-range."},
	{[]string{"range/empty items"}, "206",
		"RFC 9110 section 5.6.1.2: a recipient MUST ignore a reasonable number of empty list elements."},
	{[]string{"range/an empty item at the end"}, "206\nContent-Range: bytes 0-9/100", "The same."},
	{[]string{"range/no items"}, "416", "As with a comma alone, nothing is asked for: both are no ranges-specifier."},
	{[]string{"range/backwards beside one that is there"}, "416",
		"RFC 9110 section 14.1.1: the whole ranges-specifier is invalid, and section 14.2 has it ignored or rejected."},
	{[]string{"range/a last beyond all numbers", "range/a suffix beyond all numbers"}, "206",
		"A position past the end means the end, by however much it is past."},
	{[]string{"range/behind an empty file"}, "200\nContent-Length: 0",
		"An empty file has no parts; as for 0- and -5, where nginx does the same, the whole is less than any error."},
	{[]string{"range/seventy"}, "200\nContent-Length: 100",
		"More than rangesMax parts: RFC 9110 section 14.2 lets a server ignore many small ranges; nginx has max_ranges for it."},

	{[]string{"if-none-match/the tag and an old date"}, "304",
		"RFC 9110 section 13.1.3: If-Modified-Since MUST be ignored if there is If-None-Match."},
	{[]string{"if-modified-since/a later date"}, "304",
		"RFC 9110 section 13.1.3: not modified since is no later than; nginx has if_modified_since before for it."},
	{[]string{"if-match/the tag and an old date"}, "200",
		"RFC 9110 section 13.1.4: If-Unmodified-Since MUST be ignored if there is If-Match."},
	{[]string{"if-unmodified-since/no date"}, "200", "RFC 9110 section 13.1.4: what is no date MUST be ignored."},

	{[]string{
		"encoding/gzip", "encoding/several", "encoding/gzip with a weight", "encoding/in capitals", "encoding/head",
		"encoding/a range if it is the same, of another coding",
	}, "200\nContent-Encoding: gzip\nAccept-Ranges: bytes",
		"A sibling has bytes and a strong tag like any file, so a cut download of it can go on; nginx 1.22 has no ranges for it."},
	{[]string{"encoding/a range", "encoding/a range if it is the same"}, "206\nContent-Range: bytes 0-3/8\nContent-Encoding: gzip",
		"The same."},
	{[]string{"encoding/two ranges"}, "206\nContent-Encoding: gzip", "The same."},
	{[]string{"encoding/any", "encoding/an older name"}, "200\nContent-Encoding: gzip",
		"RFC 9110 sections 12.5.3 and 8.4.1.3: * matches any coding, and x-gzip is gzip."},
	{[]string{"encoding/over HTTP 1.0"}, "200\nContent-Encoding: gzip",
		"A client that names a coding knows it, in any version; nginx has gzip_http_version for proxies of the nineties."},
	{[]string{"encoding/rather as it is"}, "200\nContent-Length: 16", "RFC 9110 section 12.5.3: the heavier one is preferred."},
	{[]string{"encoding/an old sibling"}, "200\nContent-Length: 16",
		"A sibling older than its file holds what was there before; nginx's manual asks whoever writes them to take care."},
	{[]string{"encoding/a sibling alone"}, "404", "A sibling stands for a file: whoever removed the file meant it."},
	{[]string{"encoding/the sibling itself"}, "200\nContent-Type: application/gzip", "Our table of types is longer."},
}

// corpusFiles are the files that the corpus is about, all of them from one moment,
// in a second that has no fraction: nginx knows no others.
func corpusFiles(t testing.TB, root string) {
	t.Helper()
	at := modified.Truncate(time.Second)
	digits := strings.Repeat("0123456789", 10)
	for name, file := range map[string]struct {
		body string
		at   time.Time
	}{
		"hundred.txt":    {digits, at},
		"empty.txt":      {"", at},
		"noextension":    {"what", at},
		"dir/index.html": {"<p>index", at},
		"bare/file.txt":  {"file", at},
		"large.bin":      {strings.Repeat("0123456789abcdef", largeBytes/16) + digits, at},
		"coded.css":      {"a { color: red }", at},
		"coded.css.gz":   {"squeezed", at},
		"old.css":        {"a { color: red }", at},
		"old.css.gz":     {"squeezed", at.Add(-time.Hour)},
		"orphan.css.gz":  {"squeezed", at},
	} {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(file.body), 0o644))
		require.NoError(t, os.Chtimes(path, file.at, file.at))
	}
}

// asker sends the corpus to one server and writes its answers down, so that they
// can be compared with another's.
type asker struct {
	testing.TB
	address string
}

// ask sends a request as it stands in the corpus.
func (a *asker) ask(request string) (*http.Response, string) {
	a.Helper()
	lines := strings.Split(request, "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	path, _, http10 := strings.Cut(target, " HTTP/1.0")
	version := "HTTP/1.1"
	if http10 {
		version = "HTTP/1.0"
	}
	text := method + " " + path + " " + version + "\r\nHost: " + a.address + "\r\n"
	for _, field := range lines[1:] {
		text += field + "\r\n"
	}
	c, err := net.DialTimeout("tcp", a.address, patience)
	require.NoError(a, err)
	defer c.Close()
	require.NoError(a, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, text+"\r\n")
	require.NoError(a, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	require.NoError(a, err, request)
	body, err := io.ReadAll(resp.Body)
	require.NoError(a, err)
	return resp, string(body)
}

// tags are what the server calls the versions of the request's file.
func (a *asker) tags(request string) *strings.Replacer {
	_, target, _ := strings.Cut(strings.Split(request, "\n")[0], " ")
	target, _, _ = strings.Cut(target, " HTTP/1.0")
	plain, _ := a.ask("GET " + target)
	coded, _ := a.ask("GET " + target + "\nAccept-Encoding: gzip")
	etag, codedTag := plain.Header.Get("Etag"), coded.Header.Get("Etag")
	if etag == "" {
		return strings.NewReplacer()
	}
	if etag == codedTag {
		return strings.NewReplacer("{etag}", etag, etag, "{etag}")
	}
	return strings.NewReplacer("{etag}", etag, "{etag gzip}", codedTag, etag, "{etag}", codedTag, "{etag gzip}")
}

// answer is what the corpus says of an answer.
func (a *asker) answer(request string) string {
	a.Helper()
	tags := a.tags(request)
	resp, body := a.ask(tags.Replace(request))
	fields := []string{"Allow", "Content-Range", "Etag", "Last-Modified", "Location", "Vary"}
	if resp.StatusCode < 300 {
		fields = append(fields, "Accept-Ranges", "Content-Encoding", "Content-Length", "Content-Type")
	} else {
		body = ""
	}
	if _, parameters, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && parameters["boundary"] != "" {
		boundary := parameters["boundary"]
		assert.Equal(a, resp.Header.Get("Content-Length"), fmt.Sprint(len(body)))
		resp.Header.Del("Content-Length") // it is as long as the server's boundaries make it
		resp.Header.Set("Content-Type", strings.Replace(resp.Header.Get("Content-Type"), boundary, "BOUNDARY", 1))
		body = strings.ReplaceAll(body, boundary, "BOUNDARY")
	}
	out := fmt.Sprintln(resp.StatusCode) // the words behind it mean nothing
	slices.Sort(fields)
	for _, field := range fields {
		if value := resp.Header.Get(field); value != "" {
			out += field + ": " + tags.Replace(strings.ReplaceAll(value, a.address, "HOST")) + "\n"
		}
	}
	return strings.TrimRight(out+"\n"+strings.ReplaceAll(body, "\r\n", "\n"), "\n") + "\n"
}

// TestNginx compares what we answer with what nginx does.
func TestNginx(t *testing.T) {
	text, err := os.ReadFile(corpusFile)
	require.NoError(t, err)
	corpus := txtar.Parse(text)
	require.NotEmpty(t, corpus.Files)
	if *update {
		record(t, corpus)
		return
	}
	known := make(map[string]*difference)
	for i := range differences {
		for _, name := range differences[i].cases {
			require.Nil(t, known[name], "%s is there twice", name)
			known[name] = &differences[i]
		}
	}
	sites(t, func(s *site) {
		corpusFiles(s, s.root)
		ours := &asker{s, s.address}
		seen := 0
		for _, f := range corpus.Files {
			request, theirs, _ := strings.Cut(string(f.Data), "\n\n")
			answer := ours.answer(request)
			d := known[f.Name]
			if d == nil {
				assert.Equal(s, theirs, answer, "%s\n%s", f.Name, request)
				continue
			}
			seen++
			assert.NotEqual(s, theirs, answer, "%s: we do not differ any more", f.Name)
			for line := range strings.SplitSeq(d.ours, "\n") {
				assert.Contains(s, strings.Split(answer, "\n"), line, "%s\n%s\n%s", f.Name, request, answer)
			}
		}
		assert.Equal(s, len(known), seen, "a difference is about no case")
	})
}

// record asks nginx, which has to be installed.
func record(t *testing.T, corpus *txtar.Archive) {
	root := t.TempDir()
	corpusFiles(t, root)
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chmod(root, 0o755))
	}
	a := &asker{t, startNginx(t, root)}
	for i, f := range corpus.Files {
		request, _, _ := strings.Cut(string(f.Data), "\n\n")
		corpus.Files[i].Data = []byte(request + "\n\n" + a.answer(request))
	}
	require.NoError(t, os.WriteFile(corpusFile, txtar.Format(corpus), 0o644))
}

func startNginx(t *testing.T, root string) (address string) {
	port := looptest.FreePort(t)
	address = fmt.Sprintf("127.0.0.1:%d", port)
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	out, err := os.Create(config)
	require.NoError(t, err)
	err = template.Must(template.ParseFiles("testdata/nginx/nginx.conf")).Execute(out, map[string]any{
		"Superuser": os.Geteuid() == 0, "Dir": dir, "Root": root, "Port": port,
	})
	require.NoError(t, err)
	require.NoError(t, out.Close())
	cmd := exec.Command("nginx", "-p", dir, "-c", config)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start(), "recording needs nginx")
	t.Cleanup(func() {
		assert.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait() // it was told to end
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			require.NoError(t, c.Close())
			return address
		}
		require.True(t, time.Now().Before(end), "nginx does not listen: %v", err)
	}
}
