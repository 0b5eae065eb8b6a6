package h1

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the want sections of testdata")

// corpusCase is one case of testdata; see testdata/README.md.
type corpusCase struct {
	name  string // directory/file/case
	input []byte
	want  string
}

// logs are the readers of the three directories: from bytes to an event log.
var logs = map[string]func([]byte) string{"request": logRequest, "response": logResponse, "chunked": logChunked}

func TestCorpus(t *testing.T) {
	total := 0
	for dir, log := range logs {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
		require.NoError(t, err)
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			assert.Contains(t, string(archive.Comment), "RFC ", "%s: say where the rule is written", file)
			if *update {
				rewrite(t, file, archive, log)
			}
			for _, c := range casesOf(t, dir, file, archive) {
				total++
				t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, log(c.input)) })
			}
		}
	}
	assert.GreaterOrEqual(t, total, 120, "cases found")
}

// corpus loads the cases of one directory.
func corpus(tb testing.TB, dir string) (cases []corpusCase) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	require.NoError(tb, err)
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(tb, err)
		cases = append(cases, casesOf(tb, dir, file, archive)...)
	}
	require.NotEmpty(tb, cases)
	return cases
}

func casesOf(tb testing.TB, dir, file string, archive *txtar.Archive) (cases []corpusCase) {
	for i := 0; i < len(archive.Files); i += 2 {
		name, ok := strings.CutSuffix(archive.Files[i].Name, ".in")
		require.True(tb, ok && i+1 < len(archive.Files) && archive.Files[i+1].Name == name+".want",
			"%s: %s.in is not followed by %s.want", file, name, name)
		cases = append(cases, corpusCase{
			name:  dir + "/" + strings.TrimSuffix(filepath.Base(file), ".txtar") + "/" + name,
			input: unescape(tb, string(archive.Files[i].Data)),
			want:  string(archive.Files[i+1].Data),
		})
	}
	return cases
}

func rewrite(t *testing.T, file string, archive *txtar.Archive, log func([]byte) string) {
	for i := 0; i+1 < len(archive.Files); i += 2 {
		archive.Files[i+1].Data = []byte(log(unescape(t, string(archive.Files[i].Data))))
	}
	require.NoError(t, os.WriteFile(file, txtar.Format(archive), 0o644))
}

// unescape turns the notation of testdata/README.md into bytes.
func unescape(tb testing.TB, text string) (out []byte) {
	text = strings.ReplaceAll(text, "|\n", "\n")
	text = strings.ReplaceAll(text, "\n", "")
	for len(text) > 0 {
		if text[0] != '\\' {
			out = append(out, text[0])
			text = text[1:]
			continue
		}
		require.Greater(tb, len(text), 1, "backslash at the end")
		switch c := text[1]; c {
		case 'r', 'n', 't', '0', '\\':
			out = append(out, map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, '\\': '\\'}[c])
			text = text[2:]
		case 'x':
			value, err := strconv.ParseUint(text[2:4], 16, 8)
			require.NoError(tb, err)
			out = append(out, byte(value))
			text = text[4:]
		case '(':
			count, rest, ok := strings.Cut(text[2:], "*")
			require.True(tb, ok, "repetition without *")
			body, rest, ok := strings.Cut(rest, ")")
			require.True(tb, ok, "repetition without )")
			n, err := strconv.Atoi(count)
			require.NoError(tb, err)
			for range n {
				out = append(out, unescape(tb, body)...)
			}
			text = rest
		default:
			require.Fail(tb, "unknown escape", "\\%c", c)
		}
	}
	return out
}

// logError is the log of a message that was not read.
func logError(err error) string {
	if refused, ok := err.(*SyntaxError); ok {
		return fmt.Sprintf("%d %s\n", refused.Status, refused.Reason)
	}
	return "short\n"
}

// logText quotes bytes, cutting what is long and monotonous.
func logText(b []byte) string {
	const most = 200
	if len(b) > most {
		return fmt.Sprintf("%q... (%d bytes)", b[:20], len(b))
	}
	return strconv.Quote(string(b))
}

func logFields(out *strings.Builder, fields []Field, hopByHop func(i int) bool) {
	for i, f := range fields {
		word, key := "field", f.Key.String()
		if hopByHop(i) {
			word = "hop"
		}
		switch f.Key {
		case KeyOther:
			key = "-"
		case KeyUnderscore:
			key = "_"
		}
		if i == 3 && len(fields) > 20 {
			fmt.Fprintf(out, "... (%d fields)\n", len(fields))
		}
		if i < 3 || len(fields) <= 20 {
			fmt.Fprintf(out, "%s %s %s %s\n", word, key, f.Name, logText(f.Value))
		}
	}
}

func logBody(b Body) string {
	switch b.Kind {
	case BodyNone:
		return "none"
	case BodyLength:
		return fmt.Sprintf("length %d", b.Length)
	case BodyChunked:
		return "chunked"
	}
	return "close"
}

func logEnd(out *strings.Builder, keepAlive bool, rest []byte) string {
	if keepAlive {
		out.WriteString("connection keep-alive\n")
	} else {
		out.WriteString("connection close\n")
	}
	if len(rest) > 0 {
		fmt.Fprintf(out, "rest %s\n", logText(rest))
	}
	return out.String()
}

func logRequest(b []byte) string {
	var req Request
	n, err := ParseRequest(b, &req)
	if err != nil {
		return logError(err)
	}
	out := new(strings.Builder)
	form := [...]string{"origin", "absolute", "authority", "asterisk"}[req.Form]
	fmt.Fprintf(out, "request %s %s %s path=%s", req.MethodName, form, logText(req.Target), logText(req.Path))
	if req.Query != nil {
		fmt.Fprintf(out, " query=%s", logText(req.Query))
	}
	fmt.Fprintf(out, " HTTP/1.%d host=%q\n", req.Minor, req.Host)
	if req.Method.String() != "" && req.Method.String() != string(req.MethodName) {
		fmt.Fprintf(out, "method %s\n", req.Method)
	}
	logFields(out, req.Fields(), req.HopByHop)
	fmt.Fprintf(out, "body %s\n", logBody(req.Body))
	for _, flag := range []struct {
		set  bool
		text string
	}{
		{req.Expect100, "expect 100"}, {req.ExpectOther, "expect other"},
		{req.Upgrade, "upgrade"}, {req.TETrailers, "te trailers"},
	} {
		if flag.set {
			out.WriteString(flag.text + "\n")
		}
	}
	if target := req.AppendTarget(nil); string(target) != string(req.Target) {
		fmt.Fprintf(out, "forward %s\n", logText(target))
	}
	return logEnd(out, req.KeepAlive, b[n:])
}

func logResponse(b []byte) string {
	var resp Response
	n, err := ParseResponse(b, &resp)
	if err != nil {
		return logError(err)
	}
	out := new(strings.Builder)
	fmt.Fprintf(out, "response HTTP/1.%d %d %s\n", resp.Minor, resp.Status, logText(resp.Reason))
	logFields(out, resp.Fields(), resp.HopByHop)
	fmt.Fprintf(out, "body GET %s, HEAD %s, CONNECT %s\n", logBody(resp.Body(MethodGet)),
		logBody(resp.Body(MethodHead)), logBody(resp.Body(MethodConnect)))
	if resp.KeepAliveTimeout >= 0 {
		fmt.Fprintf(out, "timeout %d\n", resp.KeepAliveTimeout)
	}
	if resp.Upgrade {
		out.WriteString("upgrade\n")
	}
	return logEnd(out, resp.KeepAlive, b[n:])
}

func logChunked(b []byte) string {
	out := new(strings.Builder)
	data, rest, err := readChunks(b, len(b))
	fmt.Fprintf(out, "data %s\n", logText(data))
	if err != nil {
		return out.String() + logError(err)
	}
	var trailer Trailer
	n, err := ParseTrailer(rest, &trailer)
	if err != nil {
		return out.String() + logError(err)
	}
	logFields(out, trailer.Fields(), trailer.HopByHop)
	if n < len(rest) {
		fmt.Fprintf(out, "rest %s\n", logText(rest[n:]))
	}
	return out.String()
}

// readChunks feeds b to Chunks in slices of at most size bytes and returns all data and what follows the last chunk.
func readChunks(b []byte, size int) (data, rest []byte, err error) {
	var chunks Chunks
	for len(b) > 0 && !chunks.Done() {
		piece, n, err := chunks.Next(b[:min(size, len(b))])
		if err != nil {
			return data, nil, err
		}
		data = append(data, piece...)
		b = b[n:]
	}
	if !chunks.Done() {
		return data, nil, ErrShort
	}
	return data, b, nil
}
