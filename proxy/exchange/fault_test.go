package exchange_test

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// Every reason of the parser has a counter.
func TestReasonsFit(t *testing.T) {
	assert.LessOrEqual(t, h1.ReasonCount, stats.ReasonsMax)
	for _, e := range h1.Refusals() {
		assert.Less(t, int(e.Reason), stats.ReasonsMax)
	}
}

func TestProxyStatus(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault exchange.Fault
		want  string
	}{
		{"atlas", exchange.Fault{Status: 502, Error: exchange.ConnectionRefused, Upstream: "u1"},
			`atlas; error=connection_refused; next-hop="u1"`},
		{"atlas-3f9c2a71", exchange.Fault{Status: 400, Details: "cl-te"},
			`atlas-3f9c2a71; error=http_request_error; details="cl-te"`},
		{"atlas", exchange.Fault{Status: 500}, `atlas; error=proxy_internal_error`},
		{"my proxy", exchange.Fault{Status: 503, Error: exchange.DNSError}, `"my proxy"; error=dns_error`},
		{"10.0.0.1", exchange.Fault{Status: 503}, `"10.0.0.1"; error=proxy_internal_error`},
		{"atlas", exchange.Fault{Status: 504, Error: exchange.ConnectionTimeout, Upstream: `a"b\c`, Details: "d\xc3\xa9\r\nx"},
			`atlas; error=connection_timeout; next-hop="a\"b\\c"; details="d????x"`},
		{"", exchange.Fault{Status: 502, Error: exchange.ConnectionRefused}, ""},
	} {
		t.Run(row.want, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{Name: row.name}, func(x *exchange.Exchange) { x.Fault(row.fault, "A", "b") })
				c := r.Client(r.address)
				c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				resp := c.Answer("GET")
				assert.Equal(t, row.fault.Status, resp.StatusCode)
				assert.Equal(t, row.want, resp.Header.Get("Proxy-Status"))
				assert.Equal(t, "b", resp.Header.Get("A"))
				assert.False(t, resp.Close)
			})
		})
	}
}

// A request that is refused before any handler sees it is refused by a proxy as
// well, for a reason that is counted.
func TestProxyStatusOfRefusals(t *testing.T) {
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n": "host-missing",
		"nonsense\r\n\r\n":       "method",
		"GET / HTTP/2.0\r\n\r\n": "version-unsupported",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20_000):        "head-long",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n":         "te-unknown",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n":            "",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: x\r\n\r\nx": "",
	} {
		t.Run(want, func(t *testing.T) {
			engines(t, exchange.Config{Name: "atlas", BodyMax: 1000}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(request)
				status := "atlas; error=http_request_error"
				if want != "" {
					status += `; details="` + want + `"`
				}
				assert.Equal(t, status, c.Answer("GET").Header.Get("Proxy-Status"))
				c.End()
				for _, e := range h1.Refusals() {
					assert.Equal(t, e.Reason.String() == want, r.stats.RefusedRequests[e.Reason].Load() == 1, e.Reason)
				}
			})
		})
	}
}

// failures collects what Failed is told.
type failures chan exchange.Failure

func (f failures) add(record exchange.Failure) { f <- record }

func (f failures) next(t *testing.T) (record exchange.Failure) {
	t.Helper()
	select {
	case record = <-f:
	case <-time.After(patience):
		t.Fatal("no failure was reported")
	}
	return record
}

func TestFailures(t *testing.T) {
	h := func(x *exchange.Exchange) {
		switch string(x.Request.Path) {
		case "/begun":
			x.Begin(200, nil)
			assert.NoError(t, x.SendHead(h1.BodyChunked, nil))
			_ = x.Flush()
			x.Fault(exchange.Fault{Status: 502, Why: "it broke off", Upstream: "u1", Side: exchange.UpstreamSide,
				Step: "read response body", Cause: io.ErrUnexpectedEOF})
		case "/late":
			x.ReleaseHead()
			x.Fault(exchange.Fault{Status: 504, Why: "nothing came", Error: exchange.ResponseTimeout,
				Request: []byte("PUT /sent?to HTTP/1.1\r\nHost: a\r\n\r\n")})
		case "/gone":
			x.Fault(exchange.Fault{Status: exchange.StatusGone, Why: "it left", Side: exchange.ClientSide})
		case "/silent":
		case "/fine":
			x.Begin(204, nil)
			assert.NoError(t, x.SendHead(h1.BodyNone, nil))
		default:
			x.Fail(500, "broken")
		}
	}
	localhost := netip.MustParseAddr("127.0.0.1")
	long := "/" + strings.Repeat("x", 300)
	for target, want := range map[string]exchange.Failure{
		"/begun": {Fault: exchange.Fault{Status: 502, Why: "it broke off", Error: exchange.InternalError, Upstream: "u1",
			Side: exchange.UpstreamSide, Step: "read response body", Cause: io.ErrUnexpectedEOF}, Sent: 200, Target: "/begun"},
		"/late": {Fault: exchange.Fault{Status: 504, Why: "nothing came", Error: exchange.ResponseTimeout},
			Method: "PUT", Target: "/sent?to"},
		"/gone": {Fault: exchange.Fault{Status: 499, Why: "it left", Error: exchange.RequestError, Side: exchange.ClientSide},
			Target: "/gone"},
		"/silent": {Fault: exchange.Fault{Status: 500, Why: "no answer", Error: exchange.InternalError,
			Side: exchange.ProxySide, Step: "answer"}, Target: "/silent"},
		long: {Fault: exchange.Fault{Status: 500, Why: "broken", Error: exchange.InternalError,
			Side: exchange.ProxySide, Step: "answer"}, Target: long[:256]},
	} {
		t.Run(target[:5], func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				got := make(failures, 10)
				r := serve(t, engine, exchange.Config{Failed: got.add}, h)
				c := r.Client(r.address)
				c.Send("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")
				want.Client = localhost
				if want.Method == "" {
					want.Method = "GET"
				}
				assert.Equal(t, want, got.next(t))
				fine := r.Client(r.address)
				fine.Send("GET /fine HTTP/1.1\r\nHost: a\r\n\r\n")
				assert.Equal(t, 204, fine.Answer("GET").StatusCode)
				assert.Empty(t, got)
			})
		})
	}
}

// What is refused before any handler sees it: the log is told of it where the
// client did nothing wrong, or nothing that a 400 says.
func TestFailuresOfRefusals(t *testing.T) {
	for _, row := range []struct {
		request                string
		status                 int
		method, target, detail string
	}{
		{"GET / HT", 408, "", "", ""},
		{"\r\nGET /x HTTP/2.0\r\n\r\n", 505, "GET", "/x", "version-unsupported"},
		{"POST /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "POST", "/y", "te-unknown"},
		{"GET / HTTP/1.1\r\n\r\n", 400, "", "", ""},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n", 413, "", "", ""},
	} {
		looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
			got := make(failures, 10)
			r := serve(t, engine, exchange.Config{Failed: got.add, BodyMax: 1000, Header: 50 * time.Millisecond}, site)
			c := r.Client(r.address)
			c.Send(row.request)
			assert.Equal(t, row.status, c.Answer("GET").StatusCode)
			c.End()
			if row.status != 408 && row.status < 499 {
				assert.Empty(t, got)
				return
			}
			record := got.next(t)
			assert.Equal(t, row.status, record.Status)
			assert.Equal(t, row.method, record.Method)
			assert.Equal(t, row.target, record.Target)
			assert.Equal(t, row.detail, record.Details)
			assert.Equal(t, exchange.ClientSide, record.Side)
			assert.Equal(t, "read request head", record.Step)
		})
	}
}

// The client itself is who a trusted peer says it is, and the peer where that is
// not trusted.
func TestClientAddr(t *testing.T) {
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	local := prefixes("127.0.0.0/8", "10.0.0.0/8", "fd00::/8")
	for _, row := range []struct {
		name    string
		trusted []netip.Prefix
		fields  string
		want    string
	}{
		{"nobody is trusted", nil, "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.1"},
		{"others are", prefixes("10.0.0.0/8"), "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.1"},
		{"no field", local, "", "127.0.0.1"},
		{"an empty one", local, "X-Forwarded-For:\r\n", "127.0.0.1"},
		{"one address", local, "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"},
		{"the last one", local, "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", "192.0.2.2"},
		{"that is not trusted", local, "X-Forwarded-For: 192.0.2.1, 192.0.2.2,10.0.0.1 ,\tfd00::1\r\n", "192.0.2.2"},
		{"in several lines", local, "X-Forwarded-For: 192.0.2.1\r\nA: b\r\nx-forwarded-for: 10.1.1.1\r\n", "192.0.2.1"},
		{"all are trusted", local, "X-Forwarded-For: 10.0.0.1\r\n", "127.0.0.1"},
		{"an unknown one", local, "X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.1\r\n", "127.0.0.1"},
		{"ports, brackets, empty items", local, "X-Forwarded-For: [2001:db8::1]:443, , 10.0.0.1:80,\r\n", "2001:db8::1"},
		{"IPv4 in IPv6", local, "X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.1\r\n", "192.0.2.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{Trusted: row.trusted}, func(x *exchange.Exchange) {
					first := x.ClientAddr()
					x.ReleaseHead()
					assert.Equal(t, first, x.ClientAddr())
					text(x, first.String())
				})
				c := r.Client(r.address)
				for range 2 {
					c.Send("GET / HTTP/1.1\r\nHost: a\r\n" + row.fields + "\r\n")
					assert.Equal(t, row.want, c.Answer("GET").Text)
				}
				c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				assert.Equal(t, "127.0.0.1", c.Answer("GET").Text, "the last request's")
			})
		})
	}
}

// A 101 is relayed with its fields; what follows is not the exchange's.
func TestSwitch(t *testing.T) {
	var switched h1.Response
	_, err := h1.ParseResponse([]byte("HTTP/1.1 101 Go\r\nA: b\r\nUpgrade: echo/1\r\nConnection: X-Own, Upgrade\r\n"+
		"X-Own: 1\r\nContent-Length: 5\r\n\r\n"), &switched)
	assert.NoError(t, err)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
			x.ReleaseHead()
			assert.NoError(t, x.Switch(&switched))
			assert.True(t, x.Begun())
			c := x.Client
			for {
				if n := len(c.Peek()); n > 0 {
					_, _ = c.Write(append([]byte(nil), c.Peek()...))
					c.Consume(n)
				}
				if c.Flush() != nil || c.Fill() != nil {
					return
				}
			}
		})
		c := r.Client(r.address)
		c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\nearly")
		c.Expect("HTTP/1.1 101 Go\r\nA: b\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\nearly")
		c.Send("GET / HTTP/1.1\r\n\r\n")
		c.Expect("GET / HTTP/1.1\r\n\r\n")
		assert.NoError(t, c.CloseWrite())
		c.End()
		assert.EqualValues(t, 1, r.stats.Responses[0].Load())
		assert.EqualValues(t, 1, r.stats.Requests.Load())
	})
}
