package h1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// message is one request of a stream, as far as two readers must agree on it.
type message struct {
	method, target, host, body string
	keepAlive                  bool
	bytes                      int // head, body and trailer section: the next message starts behind them
}

// readOurs reads the first request of a stream, whole. It stops where a server
// would: at an error, and where bytes are missing.
func readOurs(b []byte, req *Request, trailer *Trailer) (m message, err error) {
	n, err := ParseRequest(b, req)
	if err != nil {
		return m, err
	}
	m = message{method: string(req.MethodName), target: string(req.Target), host: decodedHost(req), keepAlive: req.KeepAlive}
	switch req.Body.Kind {
	case BodyLength:
		if int64(len(b)-n) < req.Body.Length {
			return m, ErrShort
		}
		m.body = string(b[n : n+int(req.Body.Length)])
		m.bytes = n + int(req.Body.Length)
	case BodyChunked:
		data, rest, err := readChunks(b[n:], max(1, len(b)))
		if err != nil {
			return m, err
		}
		section, err := ParseTrailer(rest, trailer)
		if err != nil {
			return m, err
		}
		m.body = string(data)
		m.bytes = len(b) - len(rest) + section
	default:
		m.bytes = n
	}
	return m, nil
}

// readTheirs is the same with net/http.
func readTheirs(b []byte) (m message, trailer http.Header, err error) {
	in := bytes.NewReader(b)
	buffered := bufio.NewReaderSize(in, 64<<10) // its bound of trailer sections is the size of this
	std, err := http.ReadRequest(buffered)
	if err != nil {
		return m, nil, err
	}
	body, err := io.ReadAll(std.Body)
	if err != nil {
		return m, nil, err
	}
	m = message{method: std.Method, target: std.RequestURI, host: std.Host, body: string(body), keepAlive: !std.Close}
	m.bytes = len(b) - in.Len() - buffered.Buffered()
	return m, std.Trailer, nil
}

// differences are why net/http refuses what we accept, each with an example. Each
// is a choice that the RFC leaves, and none changes where a message ends.
var differences = []struct{ section, what, theirs, example string }{
	{"RFC 9112 section 2.2", "an empty line before a request is skipped: old clients send one behind a body",
		`^malformed HTTP request ""$`, "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"RFC 9112 section 3.2", "the target goes on byte by byte: what is no URL to us may be one to the upstream",
		`^parse "`, "GET /100% HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"RFC 9112 section 7.1.1", "white space before the semicolon of a chunk extension is bad, and to be accepted",
		`^invalid byte in chunk length$`, chunkedHead + "5 ;a\r\nhello\r\n0\r\n\r\n"},
	{"RFC 9112 section 7.1.1", "extensions of a chunk are bounded, at another size",
		`^chunked encoding contains too much non-data$|^header line too long$`,
		chunkedHead + "5;a=" + strings.Repeat("b", 5000) + "\r\nhello\r\n0\r\n\r\n"},
	{"RFC 9110 section 6.6.2", "Trailer announces names, and binds nobody: what comes is judged, not what was announced",
		`^bad trailer key`, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n"},
}

const chunkedHead = "POST /up?x=y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

func isKnown(err error) bool {
	for _, d := range differences {
		if regexp.MustCompile(d.theirs).MatchString(err.Error()) {
			return true
		}
	}
	return false
}

// requireSameStream reads a stream message by message. Where both readers accept
// one, they agree on what it says and on where the next one starts; where only we
// accept it, there is a reason on the list.
func requireSameStream(t *testing.T, b []byte) (messages int) {
	t.Helper()
	const most = 20
	req, trailer := new(Request), new(Trailer)
	for len(b) > 0 && messages < most {
		ours, err := readOurs(b, req, trailer)
		if err != nil {
			return messages
		}
		messages++
		require.LessOrEqual(t, ours.bytes, len(b))
		theirs, stdTrailer, err := readTheirs(b)
		if err != nil {
			require.True(t, isKnown(err), "only we accept %.300q: net/http says %q", b[:ours.bytes], err)
		} else {
			if !theirs.keepAlive {
				require.False(t, ours.keepAlive)
			}
			theirs.keepAlive = ours.keepAlive
			require.Equal(t, theirs, ours, "%.300q", b[:ours.bytes])
			if req.Body.Kind == BodyChunked {
				got := http.Header{}
				for _, f := range trailer.Fields() {
					got.Add(string(f.Name), string(f.Value))
				}
				for name := range stdTrailer { // announced, and not there
					if stdTrailer[name] == nil {
						delete(stdTrailer, name)
					}
				}
				require.Equal(t, len(got), len(stdTrailer), "%q %q", got, stdTrailer)
				for name, values := range got {
					require.Equal(t, values, stdTrailer[name])
				}
			}
		}
		if !ours.keepAlive {
			return messages // a server reads no further
		}
		b = b[ours.bytes:]
	}
	return messages
}

// streams are seeds: each request of the corpus, each chunked body behind a head,
// with and without a message behind it.
func streams(tb testing.TB) (all [][]byte) {
	const next = "PUT /next HTTP/1.1\r\nHost: b:80\r\nContent-Length: 3\r\n\r\nabc" +
		"GET /last HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n"
	for _, c := range corpus(tb, "request") {
		all = append(all, c.input, append(append([]byte{}, c.input...), next...))
	}
	for _, c := range corpus(tb, "chunked") {
		body := append([]byte(chunkedHead), c.input...)
		all = append(all, body, append(append([]byte{}, body...), next...))
	}
	return all
}

// The corpus itself, so that every run compares it.
func TestPipeline(t *testing.T) {
	both := 0
	for _, stream := range streams(t) {
		both += requireSameStream(t, stream)
	}
	require.Greater(t, both, 300)
	for _, d := range differences {
		require.Contains(t, d.section, "RFC ")
		require.Equal(t, 1, requireSameStream(t, []byte(d.example)), d.what)
		_, _, err := readTheirs([]byte(d.example))
		require.Error(t, err, "net/http accepts it by now: %s", d.what)
		require.Regexp(t, d.theirs, err.Error())
	}
}

// FuzzPipeline compares with net/http, message by message, a stream of any
// bytes: methods, targets, hosts, bodies, trailers, and where messages start.
func FuzzPipeline(f *testing.F) {
	const bytesMax = 1 << 10
	for _, stream := range streams(f) {
		if len(stream) <= bytesMax {
			f.Add(stream)
		}
	}
	f.Add([]byte(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 3) + "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n" +
		"1;a=\"b;c\"\r\nx\r\n0\r\nX: y\r\nX: z\r\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) { requireSameStream(t, b) })
}
