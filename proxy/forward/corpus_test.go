package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"atlas/proxy/h1"
	"atlas/proxy/invariant"
	"atlas/proxy/looptest"
)

// wireCase is a case of h1's corpus (its testdata/README.md says how to read one)
// that goes through sockets here.
type wireCase struct {
	name  string // directory/file/case
	input string
	want  []string // lines
}

// wireCases loads one directory of the corpus.
func wireCases(tb testing.TB, dir string) (cases []wireCase) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("../h1/testdata", dir, "*.txtar"))
	require.NoError(tb, err)
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(tb, err)
		for i := 0; i+1 < len(archive.Files); i += 2 {
			name := strings.TrimSuffix(archive.Files[i].Name, ".in")
			require.Equal(tb, name+".want", archive.Files[i+1].Name, file)
			cases = append(cases, wireCase{
				name:  dir + "/" + strings.TrimSuffix(filepath.Base(file), ".txtar") + "/" + name,
				input: unescape(tb, string(archive.Files[i].Data)),
				want:  strings.Split(strings.TrimSuffix(string(archive.Files[i+1].Data), "\n"), "\n"),
			})
		}
	}
	require.NotEmpty(tb, cases)
	return cases
}

// unescape turns the notation of the corpus into bytes.
func unescape(tb testing.TB, text string) string {
	tb.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "|\n", "\n"), "\n", "")
	var out strings.Builder
	for {
		plain, rest, more := strings.Cut(text, `\`)
		out.WriteString(plain)
		if !more {
			return out.String()
		}
		switch rest[0] {
		case '0':
			out.WriteByte(0)
			text = rest[1:]
		case '(':
			inner, after, ok := strings.Cut(rest[1:], ")")
			require.True(tb, ok, "repetition without )")
			count, repeated, ok := strings.Cut(inner, "*")
			require.True(tb, ok, "repetition without *")
			n, err := strconv.Atoi(count)
			require.NoError(tb, err)
			out.WriteString(strings.Repeat(unescape(tb, repeated), n))
			text = after
		default: // the rest is written as in Go
			c, _, after, err := strconv.UnquoteChar(`\`+rest, 0)
			require.NoError(tb, err)
			out.WriteByte(byte(c))
			text = after
		}
	}
}

// refusal is the status and the reason, where that is what the case wants.
func (c *wireCase) refusal() (status int, reason string) {
	last := c.want[len(c.want)-1]
	first, reason, _ := strings.Cut(last, " ")
	status, _ = strconv.Atoi(first)
	return status, reason
}

func (c *wireCase) short() bool { return c.want[len(c.want)-1] == "short" }

// line is what follows a word in the case's want, "" without such a line.
func (c *wireCase) line(word string) string {
	for _, line := range c.want {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			return rest
		}
	}
	return ""
}

// wanted are the fields that go on, as "Name: value", and whether the list is
// whole. skip are lower-case names to leave out.
func (c *wireCase) wanted(tb testing.TB, skip ...string) (all []string, whole bool) {
	tb.Helper()
	whole = true
	for _, line := range c.want {
		whole = whole && !strings.HasPrefix(line, "... (")
		word := strings.SplitN(line, " ", 4)
		if word[0] != "field" || !strings.HasPrefix(word[3], `"`) || contains(skip, word[1], word[2]) {
			continue
		}
		text := word[2] + ": " + quoted(tb, word[3])
		if strings.HasSuffix(word[3], " bytes)") {
			whole = false // of this one only the beginning is there
			break
		}
		all = append(all, text)
	}
	return all, whole
}

func contains(names []string, key, name string) bool {
	for _, n := range names {
		if n == key || strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// quoted is the text at the start of a line, in quotes there.
func quoted(tb testing.TB, line string) string {
	tb.Helper()
	prefix, err := strconv.QuotedPrefix(line)
	require.NoError(tb, err, line)
	text, err := strconv.Unquote(prefix)
	require.NoError(tb, err)
	return text
}

// sameQuoted compares a text with what the corpus says of it, which may be its
// beginning and its length.
func sameQuoted(tb testing.TB, line, text, name string) {
	tb.Helper()
	start := quoted(tb, line)
	if !strings.HasSuffix(line, " bytes)") {
		assert.Equal(tb, start, text, name)
		return
	}
	_, size, _ := strings.Cut(line, "... (")
	n, err := strconv.Atoi(strings.TrimSuffix(size, " bytes)"))
	require.NoError(tb, err)
	assert.Len(tb, text, n, name)
	assert.True(tb, strings.HasPrefix(text, start), name)
}

// headFields are the field lines of a head, without those of these names.
func headFields(head string, skip ...string) (kept []string) {
	for _, line := range strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")[1:] {
		if name, _, _ := strings.Cut(line, ":"); !contains(skip, "", name) {
			kept = append(kept, line)
		}
	}
	return kept
}

// fieldsAgree wants the head to have the case's fields, in their order.
func (c *wireCase) fieldsAgree(tb testing.TB, head string, skip ...string) {
	tb.Helper()
	want, whole := c.wanted(tb, skip...)
	got := headFields(head, skip...)
	if !whole {
		got = got[:min(len(got), len(want))]
	}
	assert.Equal(tb, strings.Join(want, "\n"), strings.Join(got, "\n"), c.name)
}

// cuts are the places between the first and the last byte of a text of this size
// at which to cut it: one of 4, as h1 is tested at each, without sockets. Of the
// middle of what fills a limit, where nothing happens for thousands of bytes, there
// are fewer. A short run, and one under the race detector, takes one of 16.
func cuts(size int) (at []int) {
	const dense, stride = 120, 509
	sample := 4
	if testing.Short() || invariant.Enabled { // which comes with the race detector
		sample = 16
	}
	for k := 1; k < size; k++ {
		switch {
		case k >= dense && size-k >= dense && k%stride != 0:
		case (k+size)%sample != 0: // other places in texts of other lengths
		default:
			at = append(at, k)
		}
	}
	return at
}

// crumbs cut a text into single bytes, or so many pieces at most.
func crumbs(text string) (pieces []string) {
	const most = 150
	size := max(1, (len(text)+most-1)/most)
	for ; len(text) > size; text = text[size:] {
		pieces = append(pieces, text[:size])
	}
	return append(pieces, text)
}

// why is the sentence that goes with a reason.
func why(tb testing.TB, reason string) string {
	tb.Helper()
	for _, refused := range h1.Refusals() {
		if refused.Reason.String() == reason {
			return refused.Why()
		}
	}
	tb.Fatalf("no reason is called %q", reason)
	return ""
}

// lanesMax is how many cases are under way at once: they mostly sleep, between
// two pieces.
const lanesMax = 32

// inLanes runs each case in one of the lanes, and says how many there were.
func inLanes(t *testing.T, cases []wireCase, run func(lane int, index int, c *wireCase)) {
	start := time.Now()
	next := make(chan int)
	var lanes sync.WaitGroup
	for lane := range lanesMax {
		lanes.Go(func() {
			for i := range next {
				run(lane, i, &cases[i])
			}
		})
	}
	for i := range cases {
		if t.Failed() {
			break
		}
		next <- i
	}
	close(next)
	lanes.Wait()
	t.Logf("%d cases in %v", len(cases), time.Since(start).Round(time.Millisecond))
}

// agrees wants a verdict to be what it was with the bytes in one piece.
func (c *wireCase) agrees(t *testing.T, whole, got string, cut int) bool {
	return assert.Equal(t, whole, got, fmt.Sprintf("%s, cut at %d of %d", c.name, cut, len(c.input)))
}

// fieldOf is the value of a field that a head has once.
func fieldOf(head, name string) string {
	_, value, _ := strings.Cut(head, "\r\n"+name+": ")
	value, _, _ = strings.Cut(value, "\r\n")
	return value
}

func readChunked(in *bufio.Reader) (body, trailer string, err error) {
	text, err := io.ReadAll(httputil.NewChunkedReader(in))
	for err == nil {
		var line string
		line, err = in.ReadString('\n')
		if line == "\r\n" {
			break
		}
		trailer += line
	}
	return string(text), trailer, err
}

func readHead(in *bufio.Reader) (head string, err error) {
	for {
		line, err := in.ReadString('\n')
		head += line
		if err != nil || line == "\r\n" {
			return head, err
		}
	}
}

// dialQuietly connects in any goroutine; nil is a failure.
func dialQuietly(address string) *looptest.Peer {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return &looptest.Peer{TCPConn: c.(*net.TCPConn), In: bufio.NewReader(c)}
}
