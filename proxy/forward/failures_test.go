package forward_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// failures collects what the log would be told.
type failures chan exchange.Failure

func (f failures) add(record exchange.Failure) { f <- record }

func (f failures) next(t testing.TB) (record exchange.Failure) {
	t.Helper()
	select {
	case record = <-f:
	case <-time.After(patience):
		t.Fatal("no failure was reported")
	}
	return record
}

// A client that gives up while the upstream is thinking: the upstream's
// connection closes at once, and the log has a 499 that says whose request it was.
func TestFailureClientLeaves(t *testing.T) {
	for name, request := range map[string]string{
		"GET":  "GET /a?b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
		"POST": "POST /a?b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				asked, closed, got := make(chan struct{}), make(chan struct{}), make(failures, 2)
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					close(asked)
					p.Gone()
					close(closed)
				})
				r := proxyOn(e, setup{client: exchange.Config{Failed: got.add, Trusted: loopback}}, up.Address)
				c := r.Client(r.address)
				c.Send(request)
				<-asked
				time.Sleep(20 * time.Millisecond)
				assert.NoError(t, c.Close())
				select {
				case <-closed:
				case <-time.After(patience / 2):
					t.Error("the upstream is still asked")
				}
				record := got.next(t)
				assert.Equal(t, 499, record.Status)
				assert.Equal(t, exchange.ClientSide, record.Side)
				assert.Equal(t, netip.MustParseAddr("192.0.2.1"), record.Client)
				assert.Equal(t, name, record.Method)
				assert.Equal(t, "/a?b", record.Target)
				assert.Equal(t, "u0", record.Upstream)
				assert.Zero(t, record.Sent)
				r.settled()
				assert.Empty(t, got)
			})
		})
	}
}

// A response that breaks off, on either side.
func TestFailureTruncated(t *testing.T) {
	for _, row := range []struct {
		name, response string
		leave          bool
		status         int
		side           exchange.Side
		step, details  string
	}{
		{"the upstream closes", "Content-Length: 10\r\n\r\nhello", false, 502, exchange.UpstreamSide, "read response body", ""},
		{"bad chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno\r\n", false, 502, exchange.UpstreamSide,
			"read response body", "chunk-size"},
		{"the client leaves", "Content-Length: 10\r\n\r\nhello", true, 499, exchange.ClientSide, "read response body", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				p.Send("HTTP/1.1 203 OK\r\nDate: d\r\n" + row.response)
				if row.leave {
					p.Gone()
				}
			}
			got := make(failures, 2)
			engines(t, setup{client: exchange.Config{Failed: got.add}}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send("PUT /" + strings.Repeat("x", 1000) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
				if row.leave {
					assert.Contains(t, c.Head(), "203 ")
					c.Reset()
				} else {
					_, err := c.Rest()
					assert.ErrorContains(t, err, "reset")
				}
				record := got.next(t)
				assert.Equal(t, row.status, record.Status)
				assert.Equal(t, 203, record.Sent)
				assert.Equal(t, row.side, record.Side)
				assert.Equal(t, row.step, record.Step)
				assert.Equal(t, row.details, record.Details)
				assert.Equal(t, "PUT", record.Method)
				assert.Equal(t, "/"+strings.Repeat("x", 255), record.Target)
				r.settled()
				for _, e := range h1.Refusals() {
					assert.Equal(t, e.Reason.String() == row.details && row.details != "",
						r.stats.RefusedResponses[e.Reason].Load() == 1, e.Reason)
				}
			})
		})
	}
}

// What keeps a request from an upstream, as Proxy-Status and the log name it.
func TestFailureConnect(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for _, row := range []struct {
			name    string
			setup   setup
			targets func(e *looptest.Env) loop.Address
			status  int
			says    string
		}{
			{"refused", setup{}, func(e *looptest.Env) loop.Address { return refusing(e) }, 502,
				`me; error=connection_refused; next-hop="u0"`},
			{"time-out", setup{connect: 50 * time.Millisecond}, func(e *looptest.Env) loop.Address { return e.Full() }, 504,
				`me; error=connection_timeout; next-hop="u0"`},
			{"none", setup{weights: []int{0}}, func(e *looptest.Env) loop.Address { return refusing(e) }, 503,
				`me; error=destination_unavailable`},
		} {
			t.Run(row.name, func(t *testing.T) {
				got := make(failures, 1)
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				row.setup.client = exchange.Config{Name: "me", Failed: got.add}
				r := proxyOn(e, row.setup, row.targets(e))
				c := r.Client(r.address)
				c.Send(get)
				resp := c.Answer("GET")
				assert.Equal(t, row.status, resp.StatusCode)
				assert.Equal(t, row.says, resp.Header.Get("Proxy-Status"))
				record := got.next(t)
				assert.Equal(t, row.status, record.Status)
				assert.Equal(t, "GET", record.Method)
				assert.Equal(t, exchange.UpstreamSide, record.Side)
			})
		}
	})
}

// A client that breaks its body, or stops.
func TestFailureBody(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Gone()
	}
	for body, status := range map[string]int{"nonsense\r\n": 400, "5\r\nhel": 408} {
		got := make(failures, 1)
		s := setup{client: exchange.Config{Name: "me", Failed: got.add}}
		if status == 408 { // the other one is heard out, however slow the machine is
			s.body = 100 * time.Millisecond
		}
		engines(t, s, script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send(chunkedPost, body)
			resp := c.Answer("POST")
			assert.Equal(t, status, resp.StatusCode)
			assert.Contains(t, resp.Header.Get("Proxy-Status"), `me; error=http_request_error; next-hop="u0"`)
			c.End()
			if status == 408 {
				record := got.next(t)
				assert.Equal(t, 408, record.Status)
				assert.Equal(t, "read request body", record.Step)
			}
			assert.Empty(t, got, "a bad request is its client's business")
		})
	}
}
