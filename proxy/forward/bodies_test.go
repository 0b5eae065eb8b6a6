package forward_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// mirror is net/http's server as an upstream: it answers with what it got, in the
// framing that the query asks for.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Method", r.Method)
	w.Header().Set("X-Trailer", r.Trailer.Get("X-Sum"))
	if r.URL.Query().Has("chunked") {
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", sum(body))
		return
	}
	if r.URL.Query().Has("close") {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func sum(body []byte) string { return fmt.Sprintf("%x", sha256.Sum256(body)) }

// server starts net/http's server as an upstream.
func server(e *looptest.Env, h http.HandlerFunc) loop.Address {
	s := httptest.NewServer(h)
	e.Cleanup(s.Close)
	address, err := netip.ParseAddrPort(s.Listener.Addr().String())
	require.NoError(e, err)
	return loop.Address{AddrPort: address}
}

// TestBodies sends every method with every framing to and fro, between a client
// and a server of net/http.
func TestBodies(t *testing.T) {
	sizes := []int{0, 1, 1000, 5000, 20_000, 100_000, 3_000_000}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, server(e, mirror))
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"} {
			for _, query := range []string{"?close", "", "?chunked"} {
				for _, size := range sizes {
					for _, chunked := range []bool{false, true} {
						if size == 3_000_000 && method != "PUT" {
							continue
						}
						name := fmt.Sprintf("%s%s of %d bytes, chunked %v", method, query, size, chunked)
						roundTrip(t, client, method, "http://"+r.address+"/"+query, looptest.Pattern(size), chunked, name)
					}
				}
			}
		}
		r.blamed(nil, nil)
		assert.Positive(t, r.idle())
	})
}

// roundTrip sends body to a mirror and wants it back.
func roundTrip(t *testing.T, client *http.Client, method, url string, body []byte, chunked bool, name string) {
	var reader io.Reader = bytes.NewReader(body)
	if chunked {
		reader = struct{ io.Reader }{reader}
	}
	request, err := http.NewRequest(method, url, reader)
	require.NoError(t, err)
	if chunked {
		request.ContentLength = -1
		request.Trailer = http.Header{"X-Sum": {sum(body)}}
	}
	resp, err := client.Do(request)
	require.NoError(t, err, name)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err, name)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode, name)
	require.Equal(t, method, resp.Header.Get("X-Method"), name)
	require.False(t, resp.Close, name)
	if method == "HEAD" {
		require.Empty(t, got)
		return
	}
	require.True(t, bytes.Equal(body, got), name)
	if chunked && len(body) > 0 { // net/http leaves an empty one out
		require.Equal(t, sum(body), resp.Header.Get("X-Trailer"), name)
	}
	if strings.HasSuffix(url, "?chunked") {
		require.Equal(t, sum(body), resp.Trailer.Get("X-Sum"), name)
	}
}

// What a client gets of each framing of the upstream, and whether both
// connections go on.
func TestResponseFraming(t *testing.T) {
	for _, row := range []struct {
		name, method, response, want string
		version                      string
		closes                       bool // the client's connection
		drops                        bool // the upstream's
	}{
		{"length", "GET", "Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\nhello", "1.1", false, false},
		{"length 0", "GET", "Content-Length: 0\r\n\r\n", "Content-Length: 0\r\n\r\n", "1.1", false, false},
		{"length, to 1.0", "GET", "Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\nConnection: close\r\n\r\nhello", "1.0",
			true, false},
		{"chunked", "GET", "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "1.1", false, false},
		{"chunked, to 1.0", "GET", "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
			"Connection: close\r\n\r\nhello", "1.0", true, false},
		{"trailer", "GET", "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX_Sum: 2\r\nConnection: x\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX_Sum: 2\r\n\r\n", "1.1", false, false},
		{"trailer, to 1.0", "GET", "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n", "Connection: close\r\n\r\n", "1.0",
			true, false},
		{"a trailer field that Connection lists", "GET",
			"Connection: X-Own\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Own: 1\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "1.1", false, false},
		{"until the end", "GET", "\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "1.1", false, true},
		{"until the end, to 1.0", "GET", "\r\nhello", "Connection: close\r\n\r\nhello", "1.0", true, true},
		{"closing", "GET", "Connection: close\r\nContent-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\nhello", "1.1", false, true},
		{"HEAD, length", "HEAD", "Content-Length: 5\r\n\r\n", "Content-Length: 5\r\n\r\n", "1.1", false, false},
		{"HEAD, chunked", "HEAD", "Transfer-Encoding: chunked\r\n\r\n", "\r\n", "1.1", false, false},
		{"HEAD, until the end", "HEAD", "\r\n", "\r\n", "1.1", false, false},
		{"HEAD, with a body", "HEAD", "Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\n", "1.1", false, true},
		{"more than the body", "GET", "Content-Length: 2\r\n\r\nhello", "Content-Length: 2\r\n\r\nhe", "1.1", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			script := func(p *looptest.Peer, _ int) {
				for p.Head() != "" {
					p.Send("HTTP/1.1 200 OK\r\nDate: d\r\n" + row.response)
					if row.drops && !strings.Contains(row.response, "Content-Length") {
						return
					}
				}
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for range 3 {
					c.Send(row.method + " / HTTP/" + row.version + "\r\nHost: x\r\n\r\n")
					c.Expect("HTTP/1.1 200 OK\r\nDate: d\r\n" + row.want)
					if row.closes {
						c.End()
						c = r.Client(r.address)
					}
					if row.drops {
						assert.Zero(t, r.idle(), "kept a connection that is no use")
					} else {
						assert.Equal(t, 1, r.idle())
					}
				}
				c.Quiet()
			})
		})
	}
}

// A whole exchange with everything that has a framing, however the network cuts
// the response.
func TestResponseCuts(t *testing.T) {
	const response = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" +
		"HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n02;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		cut := 0 // set while nobody asks
		r := proxyOn(e, setup{}, e.Script(func(p *looptest.Peer, _ int) {
			for p.Head() != "" {
				p.Send(response[:cut], response[cut:])
			}
		}).Address)
		c := r.Client(r.address)
		for cut = range len(response) {
			c.Send(get)
			assert.Contains(t, c.Head(), "103")
			resp := c.Answer("GET")
			assert.Equal(t, "hello", resp.Text, "cut at %d", cut)
			assert.Equal(t, "1", resp.Trailer.Get("X-Sum"), "cut at %d", cut)
		}
		assert.Equal(t, 1, r.idle())
	})
}

// The same for requests.
func TestRequestCuts(t *testing.T) {
	const requests = "PUT /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" +
		"PUT /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n02;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n" +
		"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, server(e, mirror))
		for cut := range len(requests) {
			c := r.Client(r.address)
			c.Send(requests[:cut], requests[cut:])
			assert.Equal(t, "hello", c.Answer("PUT").Text, "cut at %d", cut)
			second := c.Answer("PUT")
			assert.Equal(t, "hello", second.Text, "cut at %d", cut)
			assert.Equal(t, "", c.Answer("GET").Text, "cut at %d", cut)
			assert.NoError(t, c.Close())
		}
	})
}

// A stream goes on piece by piece: nothing waits for more of it.
func TestStreaming(t *testing.T) {
	for name, framing := range map[string]string{"length": "Content-Length: 8", "chunked": "Transfer-Encoding: chunked", "close": "X: y"} {
		t.Run(name, func(t *testing.T) {
			next := make(chan struct{})
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				p.Send("HTTP/1.1 200 OK\r\nDate: d\r\n" + framing + "\r\n\r\n")
				for _, piece := range []string{"ab", "cd", "ef", "gh"} {
					<-next
					if name == "chunked" {
						piece = "2\r\n" + piece + "\r\n"
					}
					p.Send(piece)
				}
				<-next
				if name == "chunked" {
					p.Send("0\r\n\r\n")
				}
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send("GET / HTTP/1.0\r\n\r\n")
				assert.Contains(t, c.Head(), "200 OK")
				for _, piece := range []string{"ab", "cd", "ef", "gh"} {
					next <- struct{}{}
					c.Expect(piece)
				}
				next <- struct{}{}
				c.End()
			})
		})
	}
}

// So does a head, with whatever framing of its body it came.
func TestStreamingHead(t *testing.T) {
	for _, begin := range []string{"", "5", "5\r\n", "0\r\n", "0\r\nX: y\r\n"} {
		script := func(p *looptest.Peer, _ int) {
			p.Head()
			p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n" + begin)
			p.Gone()
		}
		engines(t, setup{}, script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send(get)
			assert.Contains(t, c.Head(), "200 OK", "with %q", begin)
			c.Reset()
		})
	}
}

// The end of a stream may come later than its last byte by more than a client
// has for taking what is sent.
func TestStreamEndsLate(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
		time.Sleep(200 * time.Millisecond)
		p.Send("0\r\n\r\n")
		p.Gone()
	}
	engines(t, setup{write: 50 * time.Millisecond}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		resp := c.Answer("GET")
		assert.NoError(t, resp.Err)
		assert.Equal(t, "hi", resp.Text)
	})
}

// Interim responses: 100 is ours to give, others are relayed to who knows them.
func TestInterim(t *testing.T) {
	const response = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nConnection: Y\r\nY: z\r\n\r\n" +
		"HTTP/1.1 102 Processing\r\n\r\n" + ok
	engines(t, setup{}, looptest.Answers(response), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		for range 2 {
			c.Send(get)
			c.Expect("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok)
		}
		c.Send("GET / HTTP/1.0\r\n\r\n")
		c.Expect(strings.Replace(ok, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		assert.Equal(t, 1, r.idle())
	})
}

// Interim responses say that the upstream is at work: it gets more time.
func TestInterimGivesTime(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		if head := p.Head(); strings.HasPrefix(head, "POST") {
			p.Expect("1\r\nx\r\n0\r\n\r\n")
		}
		for range 5 {
			time.Sleep(350 * time.Millisecond)
			p.Send("HTTP/1.1 102 Processing\r\n\r\n")
		}
		p.Send(ok)
		p.Gone()
	}
	for _, request := range []string{get, chunkedPost + "1\r\nx\r\n0\r\n\r\n"} {
		engines(t, setup{upstream: 1500 * time.Millisecond}, script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send(request)
			assert.Equal(t, "ok", c.Answer("GET").Text)
		})
	}
}

// A length is passed on as a number that nobody can read otherwise.
func TestLengthWithZeros(t *testing.T) {
	seen := make(chan string, 1)
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			p.Expect("hello123")
			seen <- head
			p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0010\r\n\r\n0123456789")
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 008\r\n\r\nhello123")
		c.Expect("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 10\r\n\r\n0123456789")
		assert.Contains(t, <-seen, "\r\ncontent-length: 8\r\n")
	})
}

// A pipelined request whose upstream takes its time keeps no answer back.
func TestPipeliningSlowSecond(t *testing.T) {
	release := make(chan struct{})
	script := func(p *looptest.Peer, _ int) {
		for n := 0; p.Head() != ""; n++ {
			if n == 1 {
				<-release
			}
			p.Send(ok)
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get + get + get)
		c.Expect(ok)
		c.Quiet()
		release <- struct{}{}
		c.Expect(ok + ok)
	})
}

// Bodies that have to wait for room are their own client's: what other upstreams
// say meanwhile does not get into them.
func TestAnswersDoNotMix(t *testing.T) {
	sizes := []int{3000, 10, 6000, 12_000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			script := func(p *looptest.Peer, _ int) {
				for head := p.Head(); head != ""; head = p.Head() {
					letter := strings.Split(head, "/")[1][:1]
					p.Send(fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: d\r\nX: %s\r\nContent-Length: %d\r\n\r\n%s",
						letter, size, strings.Repeat(letter, size)))
				}
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				count := min(2000, 8_000_000/size) // more than the kernel takes without a reader
				const letters = "abcd"
				var clients []*looptest.Peer
				for _, letter := range letters {
					c := r.Client(r.address)
					assert.NoError(t, c.SetDeadline(time.Now().Add(12*patience))) // it waits for the others' turns
					clients = append(clients, c)
					go c.Send(strings.Repeat("GET /"+string(letter)+" HTTP/1.1\r\nHost: x\r\n\r\n", count))
				}
				r.Eventually("the clients to be stuck", func() bool { return r.stats.Requests.Load() > 200 })
				time.Sleep(50 * time.Millisecond)
				for i, c := range clients {
					for n := range count {
						resp := c.Answer("GET")
						want := letters[i : i+1]
						if resp.Header.Get("X") != want || strings.Count(resp.Text, want) != size {
							t.Fatalf("answer %d to %s is not its own: %.100q", n, want, resp.Text)
						}
					}
				}
			})
		})
	}
}
