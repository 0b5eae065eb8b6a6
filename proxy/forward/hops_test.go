package forward_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// What a peer says about who asked, whom and how: kept if it is trusted, else not.
func TestTrust(t *testing.T) {
	const other = "X-Forwarded-Port: 443\r\nForwarded: for=192.0.2.1\r\nx-real-ip: 192.0.2.1\r\n"
	for _, row := range []struct {
		name    string
		trusted []netip.Prefix
		fields  string
		want    string
	}{
		{"not trusted", nil, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: y\r\n" + other,
			"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"},
		{"another is trusted", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "X-Forwarded-For: 192.0.2.1\r\n" + other,
			"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"},
		{"trusted, and says nothing", loopback, "",
			"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"},
		{"trusted", loopback, "x-forwarded-for: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nx-forwarded-host: y\r\n" + other,
			"X-Forwarded-Proto: https\r\nx-forwarded-host: y\r\n" + other + "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n"},
		{"trusted, in several lines", loopback,
			"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For:\r\nA: b\r\nX-Forwarded-For: unknown,192.0.2.3\r\n",
			"A: b\r\nX-Forwarded-For: 192.0.2.1, unknown,192.0.2.3, 127.0.0.1\r\n" +
				"X-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"},
		{"trusted, and Connection must not change it", loopback,
			"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Real-IP\r\nX-Forwarded-For: 192.0.2.1\r\n" +
				"X-Forwarded-Proto: https\r\nX-Real-IP: 192.0.2.1\r\n",
			"X-Forwarded-Proto: https\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n" +
				"X-Forwarded-Host: x\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := make(recorder, 1)
			engines(t, setup{client: exchange.Config{Trusted: row.trusted}}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for range 2 {
					c.Send("GET / HTTP/1.1\r\nHost: x\r\n" + row.fields + "\r\n")
					assert.Equal(t, "ok", c.Answer("GET").Text)
					assert.Equal(t, "GET / HTTP/1.1\r\nHost: x\r\n"+row.want+"Via: 1.1 atlas\r\n\r\n", <-seen)
				}
			})
		})
	}
}

// A request that has been here before is not sent round again.
func TestLoops(t *testing.T) {
	for via, loops := range map[string]bool{
		"Via: 1.1 atlas\r\n":                           true,
		"via: 1.0 edge, HTTP/1.1 atlas (ours)\r\n":     true,
		"Via: 1.1 edge\r\nA: b\r\nVia: 1.1\tatlas\r\n": true,
		"Via: 1.1 edge, 1.1  atlas ,1.1 x\r\n":         true,
		"Via: 1.1 atlas2\r\n":                          false,
		"Via: 1.1 my-atlas, 1.1 atlas:80\r\n":          false,
		"Via: atlas edge, atlas\r\n":                   false,
		"Via:\r\n":                                     false,
		"X-Via: 1.1 atlas\r\n":                         false,
	} {
		t.Run(via, func(t *testing.T) {
			seen := make(recorder, 3)
			engines(t, setup{client: exchange.Config{Name: "me"}}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n" + via + "\r\n", get} {
					c.Send(request)
					resp := c.Answer("GET")
					if request != get && loops {
						assert.Equal(t, 508, resp.StatusCode)
						assert.Equal(t, "me; error=proxy_loop_detected", resp.Header.Get("Proxy-Status"))
						assert.Empty(t, seen)
						continue
					}
					if !assert.Equal(t, 200, resp.StatusCode) {
						return
					}
					head := <-seen
					assert.True(t, strings.HasSuffix(head, "\r\nVia: 1.1 atlas\r\n\r\n"), "%q", head)
				}
			})
		})
	}
}

// Max-Forwards of TRACE and OPTIONS is counted down; that of others is theirs.
func TestMaxForwards(t *testing.T) {
	const sender = " HTTP/1.1\r\nHost: x\r\n"
	for _, row := range []struct{ request, want string }{
		{"OPTIONS / HTTP/1.1\r\nHost: x\r\nmax-forwards: 1\r\n\r\n", "max-forwards: 0"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\nMax-Forwards: 10\r\n\r\n", "Max-Forwards: 9"},
		{"TRACE /" + sender + "Max-Forwards: 007\r\n\r\n", "Max-Forwards: 6"},
		{"TRACE /" + sender + "Max-Forwards: 99999999999999999999999\r\n\r\n", "Max-Forwards: 2147483647"},
		{"TRACE /" + sender + "Connection: Max-Forwards\r\nMax-Forwards: 2\r\n\r\n", "Max-Forwards: 1"},
		{"TRACE /" + sender + "\r\n", ""},
		{"TRACE /" + sender + "Content-Length: 0\r\n\r\n", "Content-Length: 0"},
		{"GET /" + sender + "Max-Forwards: 0\r\n\r\n", "Max-Forwards: 0"},
		{"GET /" + sender + "Max-Forwards: many\r\n\r\n", "Max-Forwards: many"},
		{"GET /" + sender + "Connection: Max-Forwards\r\nMax-Forwards: 2\r\n\r\n", ""},
	} {
		t.Run(row.request, func(t *testing.T) {
			seen := make(recorder, 1)
			engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(row.request)
				assert.Equal(t, "ok", c.Answer("GET").Text)
				head := <-seen
				assert.Equal(t, firstLine(row.request), firstLine(head))
				assert.Equal(t, row.want, strings.Join(fields(head), ", "))
			})
		})
	}
}

// The last recipient that Max-Forwards allows is us.
func TestMaxForwardsEnds(t *testing.T) {
	engines(t, setup{}, looptest.Answers(ok), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		for range 2 {
			c.Send("TRACE /a?b HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nCookie: secret\r\nauthorization: secret\r\n" +
				"Proxy-Authorization: secret\r\nX_Y: z\r\nVia: 1.1 edge\r\n\r\n")
			resp := c.Answer("TRACE")
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, "message/http", resp.Header.Get("Content-Type"))
			assert.Equal(t, "TRACE /a?b HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nX_Y: z\r\nVia: 1.1 edge\r\n\r\n", resp.Text)

			c.Send("OPTIONS * HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n")
			resp = c.Answer("OPTIONS")
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, "0", resp.Header.Get("Content-Length"))
			assert.Contains(t, resp.Header.Get("Allow"), "GET, ")
		}
		c.Send("OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nContent-Length: 5\r\n\r\nhello" + get)
		assert.Equal(t, 200, c.Answer("OPTIONS").StatusCode)
		assert.Equal(t, "ok", c.Answer("GET").Text)
		r.blamed(nil, nil)
	})
}

func TestMaxForwardsRefused(t *testing.T) {
	for _, request := range []string{
		"TRACE / HTTP/1.1\r\nHost: x\r\nMax-Forwards: -1\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1x\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards:\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\nMax-Forwards: 1\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1, 1\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(request, func(t *testing.T) {
			engines(t, setup{client: exchange.Config{Name: "me"}}, looptest.Answers(ok), func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(request + get)
				resp := c.Answer("TRACE")
				assert.Equal(t, 400, resp.StatusCode)
				assert.Contains(t, resp.Header.Get("Proxy-Status"), "me; error=http_request_error; details=")
				assert.Equal(t, "ok", c.Answer("GET").Text, "the connection is as good as before")
				r.blamed([]stats.ClientError{stats.BadRequest}, nil)
			})
		})
	}
	t.Run("TRACE with chunks", func(t *testing.T) {
		engines(t, setup{}, looptest.Answers(ok), func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send("TRACE / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
			resp := c.Answer("TRACE")
			assert.Equal(t, 400, resp.StatusCode)
			assert.True(t, resp.Close)
		})
	})
}

// Names with an underscore are counted, in the head and in a trailer section.
func TestUnderscoresCounted(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Expect("1\r\nx\r\n0\r\n\r\n")
		p.Send(ok)
		p.Gone()
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("POST / HTTP/1.1\r\nHost: x\r\nA_B: 1\r\nC_D: 2\r\nE-F: 3\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"1\r\nx\r\n0\r\nG_H: 4\r\n\r\n")
		assert.Equal(t, "ok", c.Answer("POST").Text)
		assert.EqualValues(t, 3, r.stats.Underscores.Load())
	})
}

// Host, path, query, names and values reach the upstream byte by byte, whatever
// they are.
func TestRequestHeadBytes(t *testing.T) {
	var target, value []byte
	for c := 0x21; c < 0x7f; c++ {
		if c != '#' {
			target = append(target, byte(c))
		}
	}
	for c := range 256 {
		if c >= ' ' && c != 0x7f || c == '\t' {
			value = append(value, byte(c))
		}
	}
	const token = "!#$%&'*+-.^`|~0189AZaz" // without the underscore
	want := "GET /" + string(target) + "?" + string(target) + "?a=b&a=b&&;%zz HTTP/1.1\r\nHost: ExAmPlE.org:0081\r\n" +
		token + ": x" + string(value) + "x\r\n" + "empty: \r\nEMPTY: \r\nzz: 1\r\naa: 2\r\nZZ: 1\r\nzz: 1\r\n"
	seen := make(recorder, 1)
	engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(want + "\r\n")
		assert.Equal(t, "ok", c.Answer("GET").Text)
		got, _, _ := strings.Cut(<-seen, "X-Forwarded-For")
		assert.Equal(t, want, got)
	})
}

// Interim responses are bounded: an upstream that sends nothing else is not
// listened to for ever.
func TestInterimsBounded(t *testing.T) {
	for many, status := range map[int]int{32: 200, 33: 502} {
		for _, request := range []string{get, chunkedPost + "1\r\nx\r\n0\r\n\r\n"} {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					p.Send(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", many) + ok)
					p.Gone()
				})
				r := proxyOn(e, setup{client: exchange.Config{Name: "me"}}, up.Address)
				c := r.Client(r.address)
				c.Send(request)
				resp := c.Answer("GET")
				assert.Equal(t, status, resp.StatusCode)
				if status == 502 {
					assert.Equal(t, `me; error=http_protocol_error; next-hop="u0"; details="too many interim responses"`,
						resp.Header.Get("Proxy-Status"))
					r.blamed(nil, []stats.UpstreamError{stats.BadResponse})
				}
			})
		}
	}
}
