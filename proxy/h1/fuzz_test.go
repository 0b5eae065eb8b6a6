package h1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// seeds are the cases of the corpus that a fuzzer can mutate to some purpose: those that fill a limit only cost time.
func seeds(f *testing.F, dir string) (cases []corpusCase) {
	const bytesMax = 1 << 10
	for _, c := range corpus(f, dir) {
		if len(c.input) <= bytesMax {
			cases = append(cases, c)
		}
	}
	return cases
}

// FuzzParseRequest compares with net/http where both accept, and cuts every input at every byte.
func FuzzParseRequest(f *testing.F) {
	for _, c := range seeds(f, "request") {
		f.Add(c.input)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(Request)
		requireStable(t, b, func(b []byte) (int, error) { return ParseRequest(b, req) })
		requireQuickAgrees(t, b)
		n, err := ParseRequest(b, req)
		if err != nil {
			require.Zero(t, n)
			require.Empty(t, req.Fields())
			return
		}
		requireSafe(t, req.Fields())
		head := bytes.TrimPrefix(b[:n], []byte("\r\n"))
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			return // net/http refuses more, for example what url.Parse does not like
		}
		require.Equal(t, std.Method, string(req.MethodName))
		require.Equal(t, std.RequestURI, string(req.Target))
		require.Equal(t, std.Host, decodedHost(req))
		if req.Form == FormOrigin && !strings.HasPrefix(std.RequestURI, "//") {
			path, err := url.PathUnescape(string(req.Path))
			require.NoError(t, err)
			require.Equal(t, std.URL.Path, path)
			require.Equal(t, std.URL.RawQuery, string(req.Query))
		}
		// net/http takes Host and the framing fields out, and adds Cache-Control to Pragma.
		std.Header.Set("Host", std.Host)
		requireSameFields(t, std.Header, req.Fields())
		requireSameBody(t, std.ContentLength, std.TransferEncoding, req.Body)
		if std.Close {
			require.False(t, req.KeepAlive)
		}
	})
}

// decodedHost is the host as net/http shows it, which decodes the authority of a
// target (RFC 3986 section 3.2.2). We pass on what came.
func decodedHost(req *Request) string {
	if req.Form == FormAbsolute || req.Form == FormAuthority {
		if host, err := url.PathUnescape(string(req.Host)); err == nil {
			return host
		}
	}
	return string(req.Host)
}

// FuzzParseResponse compares with net/http where both accept.
func FuzzParseResponse(f *testing.F) {
	for _, c := range seeds(f, "response") {
		f.Add(c.input)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		resp := new(Response)
		requireStable(t, b, func(b []byte) (int, error) { return ParseResponse(b, resp) })
		n, err := ParseResponse(b, resp)
		if err != nil {
			require.Zero(t, n)
			require.Empty(t, resp.Fields())
			return
		}
		requireSafe(t, resp.Fields())
		for _, method := range []Method{MethodGet, MethodHead} {
			std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b[:n])), &http.Request{Method: method.String()})
			if err != nil {
				return
			}
			require.Equal(t, std.StatusCode, resp.Status)
			requireSameFields(t, std.Header, resp.Fields())
			requireSameResponseBody(t, std, method, resp)
		}
	})
}

func requireSameResponseBody(t *testing.T, std *http.Response, method Method, resp *Response) {
	t.Helper()
	body := resp.Body(method)
	switch {
	case body.Kind == BodyNone: // net/http reports what the fields say, and gives no byte
		rest, err := io.ReadAll(std.Body)
		require.NoError(t, err)
		require.Empty(t, rest)
	case body.Kind == BodyClose:
		require.Equal(t, int64(-1), std.ContentLength)
		require.Empty(t, std.TransferEncoding)
		require.False(t, resp.Reusable(method))
	default:
		requireSameBody(t, std.ContentLength, std.TransferEncoding, body)
	}
	if std.Close {
		require.False(t, resp.Reusable(method))
	}
}

// FuzzChunks compares with the decoder of net/http/httputil where ours accepts, and every way to slice the input.
func FuzzChunks(f *testing.F) {
	for _, c := range seeds(f, "chunked") {
		f.Add(c.input, uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		data, rest, err := readChunks(b, max(1, len(b)))
		gotData, gotRest, gotErr := readChunks(b, max(1, int(size)))
		require.Equal(t, string(data), string(gotData))
		require.Equal(t, string(rest), string(gotRest))
		require.Equal(t, err, gotErr)
		for _, k := range cuts(len(b)) {
			requireSplit(t, b, k, data, rest, err)
		}
		if err != nil {
			return
		}
		std := bufio.NewReader(bytes.NewReader(b))
		stdData, stdErr := io.ReadAll(httputil.NewChunkedReader(std))
		if stdErr != nil && (tooMuch.MatchString(stdErr.Error()) || spaced.Match(b)) {
			return // its bounds are not ours, and it refuses white space that RFC 9112 section 7.1.1 wants accepted
		}
		require.NoError(t, stdErr)
		require.Equal(t, string(stdData), string(data))
		stdRest, _ := io.ReadAll(std)
		require.Equal(t, string(stdRest), string(rest))

		trailer := new(Trailer)
		requireStable(t, rest, func(b []byte) (int, error) { return ParseTrailer(b, trailer) })
		requireSafe(t, trailer.Fields())
	})
}

var (
	tooMuch = regexp.MustCompile("too much|too long")
	spaced  = regexp.MustCompile(`[0-9a-fA-F][ \t]+;`)
)

// FuzzParseDate compares with net/http.ParseTime where both accept.
func FuzzParseDate(f *testing.F) {
	for _, text := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"Tue, 29 Feb 2000 23:59:60 GMT", "Sat, 01 Jan 0000 00:00:00 GMT", "Monday, 01-Jan-70 00:00:00 GMT",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const now = 1_700_000_000
		unix, ok := ParseDate(b, now)
		if !ok {
			require.Zero(t, unix)
			return
		}
		std, err := http.ParseTime(string(b))
		if err != nil {
			require.Regexp(t, ":60 |y, ", string(b), "only leap seconds and names of days are ours alone")
			return
		}
		const fullYear = "Sun Nov  6 08:49:37 1994"
		if len(b) == DateBytes || len(b) == len(fullYear) {
			require.Equal(t, std.Unix(), unix)
		}
	})
}

// requireSafe demands what whoever writes a field out again relies on.
func requireSafe(t *testing.T, fields []Field) {
	t.Helper()
	for _, f := range fields {
		require.True(t, ValidName(f.Name), "name %q", f.Name)
		require.True(t, ValidValue(f.Value), "value %q", f.Value)
		if f.Key > KeyUnderscore {
			require.Equal(t, f.Key.String(), strings.ToLower(string(f.Name)))
		} else {
			key, _ := lookup(f.Name)
			require.Equal(t, KeyOther, key)
			require.Equal(t, strings.Contains(string(f.Name), "_"), f.Key == KeyUnderscore)
		}
	}
}

// requireSameFields demands that net/http saw the same fields, apart from those that it takes out or makes up.
func requireSameFields(t *testing.T, std http.Header, fields []Field) {
	t.Helper()
	got := http.Header{}
	for _, f := range fields {
		name := textproto.CanonicalMIMEHeaderKey(string(f.Name))
		got[name] = append(got[name], string(f.Value))
	}
	for _, name := range []string{"Connection", "Host", "Transfer-Encoding", "Content-Length", "Trailer"} {
		delete(got, name)
		delete(std, name)
	}
	if _, ok := got["Cache-Control"]; !ok {
		delete(std, "Cache-Control")
	}
	require.Equal(t, std, got)
}

func requireSameBody(t *testing.T, length int64, codings []string, body Body) {
	t.Helper()
	switch body.Kind {
	case BodyChunked:
		require.Equal(t, []string{"chunked"}, codings)
	case BodyLength:
		require.Empty(t, codings)
		require.Equal(t, length, body.Length)
	case BodyNone:
		require.Empty(t, codings)
		require.Zero(t, length)
	default:
		require.Fail(t, "unexpected body", "%v", body)
	}
}

// TestErrorsAreConstant: the same refusal is the same value, and all are listed.
func TestErrorsAreConstant(t *testing.T) {
	seen := map[string]bool{}
	for i, refused := range Refusals() {
		require.Equal(t, i+int(reasonBareLF), int(refused.Reason))
		require.NotContains(t, seen, refused.Reason.String())
		seen[refused.Reason.String()] = true
		require.Contains(t, []int{400, 414, 431, 501, 502, 505}, refused.Status)
		require.Contains(t, refused.Error(), "RFC ")
		require.Same(t, refused, refused.Reason.err())
	}
	require.Len(t, seen, ReasonCount-int(reasonBareLF))
	require.Len(t, Labels(), ReasonCount)
	require.Equal(t, "cl-te", Labels()[reasonLengthAndCoding])
	require.Empty(t, Labels()[reasonShort])
	require.Equal(t, "unknown", Reason(ReasonCount).String())
	require.True(t, errors.Is(reasonShort.err(), ErrShort))
}
