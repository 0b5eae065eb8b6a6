package forward_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// witness is an upstream, net/http's server, that remembers each whole request.
type witness struct {
	mu  sync.Mutex
	saw []derived
}

// derived is what net/http makes of a request.
type derived struct {
	method, target, host, body string
	header, trailer            http.Header
}

func (d derived) String() string {
	return fmt.Sprintf("%s %s for %q, %.100q", d.method, d.target, d.host, d.body)
}

func (w *witness) handle(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.mu.Lock()
	w.saw = append(w.saw, derived{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer})
	w.mu.Unlock()
	rw.Header().Set("Content-Length", "0")
}

func (w *witness) take() []derived {
	w.mu.Lock()
	defer w.mu.Unlock()
	saw := w.saw
	w.saw = nil
	return saw
}

// deriveAll is what net/http makes of a client's bytes, one request after the
// other, and why it stopped.
func deriveAll(stream []byte) (all []derived, err error) {
	const most = 100
	for len(all) < most {
		stream = bytes.TrimPrefix(stream, []byte("\r\n")) // RFC 9112 section 2.2
		in := bytes.NewReader(stream)
		buffered := bufio.NewReaderSize(in, 64<<10)
		r, err := http.ReadRequest(buffered)
		if err != nil {
			return all, err
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return all, err
		}
		all = append(all, derived{r.Method, originForm(r.Method, r.RequestURI), r.Host, string(body), r.Header, r.Trailer})
		stream = stream[len(stream)-in.Len()-buffered.Buffered():]
	}
	return all, nil
}

// originForm is what of a target goes on (RFC 9112 section 3.2.1).
func originForm(method, target string) string {
	_, rest, absolute := strings.Cut(target, "://")
	if !absolute || strings.HasPrefix(target, "/") {
		return target
	}
	at := strings.IndexAny(rest, "/?")
	switch {
	case at < 0 && method == "OPTIONS":
		return "*"
	case at < 0:
		return "/"
	case rest[at] == '?':
		return "/" + rest[at:]
	}
	return rest[at:]
}

// ours are fields that the proxy writes or takes out, whatever the client said.
var ours = []string{"Content-Length", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Connection", "Upgrade", "Te",
	"Max-Forwards"}

// from reports that the upstream's request is the client's.
func (d derived) from(c derived) bool {
	if d.method != c.method || d.target != c.target || d.host != c.host || d.body != c.body {
		return false
	}
	for name, values := range d.header {
		if !contains(ours, "", name) && fmt.Sprint(values) != fmt.Sprint(c.header[name]) {
			return false
		}
	}
	for name, values := range d.trailer {
		if values != nil && fmt.Sprint(values) != fmt.Sprint(c.trailer[name]) {
			return false
		}
	}
	return true
}

// tolerant are reasons of net/http to refuse a request that we accept, which say
// nothing about what follows it: see differences of h1.
var tolerant = regexp.MustCompile(`^parse "|^invalid byte in chunk length$|too much non-data|line too long|^bad trailer key`)

// FuzzServe has a client say anything. The upstream gets no request that net/http
// does not read from the same bytes, in the same order, whatever the proxy
// refuses or takes out.
func FuzzServe(f *testing.F) {
	const bytesMax = 1 << 10
	for _, c := range append(wireCases(f, "request"), wireCases(f, "chunked")...) {
		text := c.input
		if strings.HasPrefix(c.name, "chunked") {
			text = chunkedPost + text
		}
		if len(text) <= bytesMax {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte(get + post + chunkedPost + "5\r\nhello\r\n0\r\nX: y\r\n\r\n" + "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"))
	// The fuzzer listens to signals, in a goroutine that is no leak: start it now.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	signal.Stop(signals)
	engine, _, err := loop.Choose(loop.Auto)
	require.NoError(f, err)
	e := looptest.New(f, loop.Config{Engine: engine, CPU: -1})
	w := new(witness)
	// What never becomes whole is given up soon.
	soon := exchange.Config{Header: 10 * time.Millisecond, Body: 10 * time.Millisecond}
	r := proxyOn(e, setup{client: soon, body: soon.Body}, server(e, w.handle))
	f.Fuzz(func(t *testing.T, text []byte) {
		stream := append(append([]byte{}, text...), lastGet...)
		c := newClient(t, r)
		defer c.Reset() // leaves no port behind
		_, _ = c.Write(stream)
		_, _ = io.Copy(io.Discard, c.In)
		saw := w.take()
		expected, stopped := deriveAll(stream)
		next := 0
		for _, d := range saw {
			for next < len(expected) && !d.from(expected[next]) {
				next++ // refused, or answered by the proxy itself
			}
			if next == len(expected) {
				assert.True(t, stopped != nil && tolerant.MatchString(stopped.Error()),
					"the upstream got %v: net/http reads %v and then %v", d, expected, stopped)
				break
			}
			next++
		}
		assert.Zero(t, r.Loop.Counters().Panics.Load())
	})
}

// lastGet is sent behind a client's bytes: whether it is answered says whether
// the connection went on, and it ends it.
const lastGet = "GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
