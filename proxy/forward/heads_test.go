package forward_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/looptest"
)

// What the upstream gets of a request head, field by field.
func TestRequestHead(t *testing.T) {
	for _, row := range []struct {
		name    string
		request string
		line    string
		want    []string
	}{
		{"as it came", "GET /a/b?c=d&e HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
			"GET /a/b?c=d&e HTTP/1.1", []string{"Accept: */*"}},
		{"bytes of the target", "GET //a/../%2e%2E/;x=%00|{}?%zz?#"[:32] + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET //a/../%2e%2E/;x=%00|{}?%zz? HTTP/1.1", nil},
		{"absolute form", "GET http://x:80/a?b HTTP/1.1\r\nHost: x:80\r\n\r\n", "GET /a?b HTTP/1.1", nil},
		{"absolute form without a path", "GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", nil},
		{"OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1", nil},
		{"OPTIONS in absolute form", "OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1", nil},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", nil},
		{"a method of its own", "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "BREW /pot HTTP/1.1", nil},
		{"order, case, duplicates", "GET / HTTP/1.1\r\nb: 1\r\nA: 2\r\nHost: x\r\nb: 3\r\nB: 4\r\n\r\n",
			"GET / HTTP/1.1", []string{"b: 1", "A: 2", "b: 3", "B: 4"}},
		{"empty values and space around", "GET / HTTP/1.1\r\nHost: x\r\nA:\r\nB: \t x  y \t\r\n\r\n",
			"GET / HTTP/1.1", []string{"A: ", "B: x  y"}},
		{"obs-text", "GET / HTTP/1.1\r\nHost: x\r\nA: caf\xe9 \xff\x80\r\n\r\n", "GET / HTTP/1.1", []string{"A: caf\xe9 \xff\x80"}},
		{"hop by hop", "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Own, te\r\nKeep-Alive: 5\r\nX-Own: 1\r\n" +
			"Proxy-Connection: close\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Authorization: y\r\nA: 1\r\n\r\n",
			"GET / HTTP/1.1", []string{"A: 1"}},
		{"what Connection must not remove", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Host, Content-Type\r\nContent-Type: y\r\n\r\n",
			"GET / HTTP/1.1", []string{"Content-Type: y"}},
		{"underscores", "GET / HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: 1\r\nA_B: 2\r\nA-B: 3\r\n\r\n",
			"GET / HTTP/1.1", []string{"A-B: 3"}},
		{"an expectation is ours", "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", "GET / HTTP/1.1", nil},
		{"length 0", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.1", []string{"Content-Length: 0"}},
		{"Forwarded is ours to say", "GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=6.6.6.6\r\nA: 1\r\n\r\n",
			"GET / HTTP/1.1", []string{"A: 1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := make(recorder, 1)
			engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(row.request)
				assert.Equal(t, "ok", c.Answer("GET").Text)
				head := <-seen
				assert.Equal(t, row.line, firstLine(head))
				assert.Equal(t, row.want, fields(head))
			})
		})
	}
}

// Every request says who asked, whom, how, and that we are in between; nobody
// says it for us.
func TestProvenance(t *testing.T) {
	const lies = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
	for _, row := range []struct{ name, request, host, via string }{
		{"1.1", "GET / HTTP/1.1\r\nHost: Example.org:81\r\n" + lies + "\r\n", "Example.org:81", "1.1 atlas"},
		{"1.0", "GET / HTTP/1.0\r\nHost: x\r\n" + lies + "\r\n", "x", "1.0 atlas"},
		{"no host", "GET / HTTP/1.0\r\n" + lies + "\r\n", "", "1.0 atlas"},
		{"absolute form", "GET http://x/ HTTP/1.1\r\nHost: X:80\r\n" + lies + "\r\n", "x", "1.1 atlas"},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := make(recorder, 1)
			engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(row.request)
				assert.Equal(t, "ok", c.Answer("GET").Text)
				assert.Equal(t, "GET / HTTP/1.1\r\nHost: "+row.host+"\r\nX-Forwarded-For: 127.0.0.1\r\n"+
					"X-Forwarded-Proto: http\r\nX-Forwarded-Host: "+row.host+"\r\nVia: "+row.via+"\r\n\r\n", <-seen)
			})
		})
	}
	t.Run("another Via stays in front", func(t *testing.T) {
		seen := make(recorder, 1)
		engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send("GET / HTTP/1.1\r\nHost: x\r\nVia: 1.1 edge\r\n\r\n")
			assert.Equal(t, "ok", c.Answer("GET").Text)
			head := <-seen
			assert.Less(t, strings.Index(head, "Via: 1.1 edge"), strings.Index(head, "Via: 1.1 atlas"))
		})
	})
}

// What the client gets of a response head, byte by byte.
func TestResponseHead(t *testing.T) {
	for _, row := range []struct{ name, response, want string }{
		{"as it came", "HTTP/1.1 200 OK\r\nDate: d\r\nServer: s\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nServer: s\r\nContent-Length: 0\r\n\r\n"},
		{"its reason", "HTTP/1.1 404 Gone Fishing \xfc\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 404 Gone Fishing \xfc\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"no reason", "HTTP/1.1 200\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"an empty reason", "HTTP/1.1 200 \r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 \r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"a status of its own", "HTTP/1.1 299 X\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 299 X\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"its version", "HTTP/1.0 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"order, case, duplicates, empty, obs-text",
			"HTTP/1.1 200 OK\r\nDate: d\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\nX_Y:\r\nA: \xe9\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\nX_Y: \r\nA: \xe9\r\n\r\n"},
		{"hop by hop", "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: keep-alive, X-Own\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\n" +
			"Proxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"its close is not ours", "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"},
		{"no content with a length", "HTTP/1.1 204 No Content\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n"},
		{"not modified with a length", "HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 500\r\nETag: \"x\"\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 500\r\nETag: \"x\"\r\n\r\n"},
		{"chunked", "HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: d\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			engines(t, setup{}, looptest.Answers(row.response), func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for range 2 {
					c.Send(get)
					c.Expect(row.want)
				}
				c.Quiet()
			})
		})
	}
}

// A response without Date gets ours, and keeps the upstream's Server.
func TestResponseDate(t *testing.T) {
	response := "HTTP/1.1 200 OK\r\nServer: theirs\r\nContent-Length: 0\r\n\r\n"
	engines(t, setup{}, looptest.Answers(response), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		assert.Regexp(t, `^HTTP/1.1 200 OK\r\nServer: theirs\r\nContent-Length: 0\r\nDate: .{25} GMT\r\n\r\n$`, c.Head())
	})
}

// Heads may be large: what fits the limits goes through.
func TestLargeHeads(t *testing.T) {
	var large strings.Builder
	for range 14 {
		large.WriteString("X-Large: " + strings.Repeat("x", 1000) + "\r\n")
	}
	seen := make(recorder, 1)
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			seen <- head
			p.Send("HTTP/1.1 200 OK\r\nDate: d\r\n" + large.String() + "Content-Length: 2\r\n\r\nok")
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		for range 3 {
			c.Send("GET / HTTP/1.1\r\nHost: x\r\n" + large.String() + "\r\n")
			c.Expect("HTTP/1.1 200 OK\r\nDate: d\r\n" + large.String() + "Content-Length: 2\r\n\r\nok")
			assert.Len(t, fields(<-seen), 14)
		}
	})
}

func TestConnect(t *testing.T) {
	engines(t, setup{}, looptest.Answers(ok), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
		resp := c.Answer("GET")
		assert.Equal(t, 405, resp.StatusCode)
		assert.Contains(t, resp.Header.Get("Allow"), "GET, ")
		c.End()
	})
}
