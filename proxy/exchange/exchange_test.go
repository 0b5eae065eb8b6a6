package exchange_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
)

func TestKeepAlive(t *testing.T) {
	for _, row := range []struct {
		name       string
		request    string
		connection string // in the response
		keeps      bool
	}{
		{"1.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
		{"1.1, close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", false},
		{"1.1, close among others", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", "close", false},
		{"1.0", "GET / HTTP/1.0\r\n\r\n", "close", false},
		{"1.0, keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive", true},
		{"1.0, both", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "close", false},
		{"1.0, an end that is the connection's", "GET /until-close HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "close", false},
		{"1.1, an end that is a chunk", "GET /until-close HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
		{"no content", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
		{"an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				method, _, _ := strings.Cut(strings.TrimLeft(row.request, "\r\n"), " ")
				for range 3 {
					c.Send(row.request)
					resp := c.Answer(method)
					assert.NoError(t, resp.Err)
					assert.Equal(t, row.connection, rawConnection(resp))
					if !row.keeps {
						c.End()
						break
					}
				}
				assert.NoError(t, c.Close())
				r.gone()
			})
		})
	}
}

// rawConnection undoes what net/http makes of Connection: close.
func rawConnection(resp *looptest.Response) string {
	if resp.Close && resp.Header.Get("Connection") == "" {
		return "close"
	}
	return resp.Header.Get("Connection")
}

func TestPipelining(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		var requests strings.Builder
		for i := range 100 {
			fmt.Fprintf(&requests, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		}
		c.Send(requests.String())
		for i := range 100 {
			assert.Equal(t, fmt.Sprintf("/%d", i), c.Answer("GET").Text)
		}
		c.Quiet()
		assert.EqualValues(t, 100, r.stats.Requests.Load())
	})
}

// Where the network cuts requests has no influence on the answers.
func TestPipeliningCuts(t *testing.T) {
	const requests = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n" +
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n" +
		"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		for cut := range len(requests) {
			c := r.Client(r.address)
			c.Send(requests[:cut], requests[cut:])
			for _, want := range []string{"/one", "hello", "abc", "/last"} {
				assert.Equal(t, want, c.Answer("GET").Text, "cut at %d", cut)
			}
			c.End()
			assert.NoError(t, c.Close())
		}
	})
}

// An answer does not wait for the rest of the next request: its client may wait
// for the answer first.
func TestPipeliningHalfARequest(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /tw")
		assert.Equal(t, "/one", c.Answer("GET").Text)
		c.Send("o HTTP/1.1\r\nHost: a\r\n\r\n\r\n") // and an empty line, as old clients do
		assert.Equal(t, "/two", c.Answer("GET").Text)
		c.Send("GET /three HTTP/1.1\r\nHost: a\r\n\r\n")
		assert.Equal(t, "/three", c.Answer("GET").Text)
	})
}

// A client that ends its direction behind its requests gets its answers.
func TestHalfClose(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n")
		assert.NoError(t, c.CloseWrite())
		assert.Equal(t, "/one", c.Answer("GET").Text)
		assert.Equal(t, "/two", c.Answer("GET").Text)
		c.End()
		r.gone()
		r.counted(0, stats.ClientReset)
	})
}

func TestHeaderTimeout(t *testing.T) {
	for name, before := range map[string]string{
		"of the first request":  "",
		"of a later one":        "GET /one HTTP/1.1\r\nHost: a\r\n\r\n",
		"of one behind a body":  "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"of one behind another": "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, exchange.Config{Header: 50 * time.Millisecond}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(before + "HEAD / HTTP/1.1\r\nHost:")
				for range strings.Count(before, "HTTP/1.1") {
					assert.Equal(t, 200, c.Answer("GET").StatusCode)
				}
				resp := c.Answer("GET") // its method is nothing to rely on
				assert.Equal(t, 408, resp.StatusCode)
				assert.Equal(t, "close", rawConnection(resp))
				assert.Contains(t, resp.Text, "408 Request Timeout: the request head took too long")
				c.End()
				assert.NoError(t, c.Close())
				r.gone()
				r.counted(1, stats.RequestTimeout)
			})
		})
	}
}

// The time-out is for the whole head: bytes that keep coming do not stretch it.
func TestHeaderTimeoutIsTotal(t *testing.T) {
	engines(t, exchange.Config{Header: 100 * time.Millisecond}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		answered := make(chan struct{})
		go func() {
			for {
				select {
				case <-answered:
					return
				case <-time.After(20 * time.Millisecond):
					_, _ = c.Write([]byte("GET / HTTP/1.1\r\nX: y"[:1])) // ends with the connection
				}
			}
		}()
		assert.Equal(t, 408, c.Answer("GET").StatusCode)
		close(answered)
	})
}

func TestIdleTimeout(t *testing.T) {
	engines(t, exchange.Config{Idle: time.Second}, func(t *testing.T, r *rig) { // in which a busy machine asks once
		silent, once := r.Client(r.address), r.Client(r.address)
		once.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		assert.Equal(t, 200, once.Answer("GET").StatusCode)
		once.End()
		silent.End() // and no 408: it asked nothing
		r.gone()
		r.counted(0, stats.RequestTimeout)
		r.counted(0, stats.ClientReset)
	})
}

// The empty line that some clients put behind a body is no request that begins:
// nobody is told that it took too long.
func TestStrayEmptyLine(t *testing.T) {
	const post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	engines(t, exchange.Config{Header: 50 * time.Millisecond}, func(t *testing.T, r *rig) {
		for _, pieces := range [][]string{{post + "\r\n"}, {post, "\r\n"}, {post, "\r", "\n"}} {
			c := r.Client(r.address)
			c.Send(pieces...)
			assert.Equal(t, "hello", c.Answer("POST").Text)
			time.Sleep(100 * time.Millisecond) // longer than a head may take
			c.Quiet()
			c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			assert.Equal(t, 200, c.Answer("GET").StatusCode)
		}
		r.counted(0, stats.RequestTimeout)
	})
	engines(t, exchange.Config{Idle: 100 * time.Millisecond}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("\r\n")
		c.End() // when it has been idle for long enough
	})
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("\r\n", "\r\n")
		assert.Equal(t, 400, c.Answer("GET").StatusCode, "two of them are one too many")
	})
}

func TestExpect(t *testing.T) {
	const head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(head)
		c.Expect("HTTP/1.1 100 Continue\r\n\r\n")
		c.Quiet()
		c.Send("he", "llo")
		assert.Equal(t, "hello", c.Answer("POST").Text)
		// With a body that is here already, it is not told to send it.
		c.Send(head + "hello")
		assert.Contains(t, c.Head(), "HTTP/1.1 200 OK\r\n")
		c.Expect("hello")
		c.Send(strings.Replace(head, "Content-Length: 5", "Content-Length: 0", 1))
		assert.Contains(t, c.Head(), "HTTP/1.1 200 OK\r\n")
		c.Send(strings.Replace(head, "Content-Length: 5", "Transfer-Encoding: chunked", 1))
		c.Expect("HTTP/1.1 100 Continue\r\n\r\n")
		c.Send("2\r\nhi\r\n0\r\n\r\n")
		assert.Equal(t, "hi", c.Answer("POST").Text)
		// Nor is a client of HTTP/1.0, which knows nothing of it.
		c.Send(strings.Replace(head, "/1.1", "/1.0", 1))
		c.Quiet()
		c.Send("hello")
		assert.Equal(t, "hello", c.Answer("POST").Text)
		c.End()
	})
}

// A handler that answers without the body does not ask for it: then the client
// may leave it out, and nobody knows what comes next.
func TestExpectUnread(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		resp := c.Answer("POST")
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, "close", rawConnection(resp))
		c.End()
	})
}

func TestUnreadBody(t *testing.T) {
	next := "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, request := range map[string]string{
		"length": "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000),
		"none":   "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run("small, "+name, func(t *testing.T) {
			engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for range 2 {
					c.Send(request + next)
					assert.Equal(t, "/other", c.Answer("POST").Text)
					assert.Equal(t, "/next", c.Answer("GET").Text)
				}
			})
		})
	}
	for name, head := range map[string]string{
		"length": "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n",
		"chunks": "POST /other HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n927c0\r\n",
	} {
		t.Run("large, "+name, func(t *testing.T) {
			engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(head, strings.Repeat("x", 600_000)) // all of it, before it reads
				resp := c.Answer("POST")
				assert.Equal(t, "/other", resp.Text)
				assert.Equal(t, "close", rawConnection(resp))
				c.End()
				assert.NoError(t, c.Close())
				r.gone()
			})
		})
	}
}

// refusals are requests that are answered without a handler, and the status.
var refusals = []struct {
	status  int
	name    string
	request string
	count   stats.ClientError
}{
	{400, "no HTTP", "nonsense\r\n\r\n", stats.BadRequest},
	{400, "no host", "GET / HTTP/1.1\r\n\r\n", stats.BadRequest},
	{400, "two framings", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", stats.BadRequest},
	{413, "length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", stats.BodyTooLarge},
	{413, "length and expectation", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
		stats.BodyTooLarge},
	{414, "target", "GET /" + strings.Repeat("x", 10_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", stats.TargetTooLong},
	{417, "expectation", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: miracles\r\n\r\n", stats.BadExpectation},
	{431, "head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20_000) + "\r\n\r\n", stats.HeadTooLarge},
	{431, "fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n", stats.HeadTooLarge},
	{501, "coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", stats.NotImplemented},
	{505, "version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", stats.BadVersion},
}

func TestRefusals(t *testing.T) {
	for _, row := range refusals {
		t.Run(fmt.Sprintf("%d %s", row.status, row.name), func(t *testing.T) {
			engines(t, exchange.Config{BodyMax: 1000}, func(t *testing.T, r *rig) {
				for i, before := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
					c := r.Client(r.address)
					// More than the refused bytes, and before it reads: it
					// must be able to read the answer all the same.
					c.Send(before+row.request, strings.Repeat("x", 300_000))
					if before != "" {
						assert.Equal(t, 200, c.Answer("GET").StatusCode)
					}
					resp := c.Answer("GET")
					assert.NoError(t, resp.Err)
					assert.Equal(t, row.status, resp.StatusCode)
					assert.Equal(t, "close", rawConnection(resp))
					assert.Equal(t, "atlas", resp.Header.Get("Server"))
					assert.NotEmpty(t, resp.Header.Get("Date"))
					assert.Contains(t, resp.Text, fmt.Sprintf("%d %s: ", row.status, h1.StatusText(row.status)))
					c.End()
					assert.NoError(t, c.Close())
					r.gone()
					r.counted(int64(i+1), row.count)
				}
			})
		})
	}
}

// The answer to HEAD has no body, also where it says no.
func TestRefusalOfHead(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: miracles\r\n\r\n")
		assert.Contains(t, c.Head(), "HTTP/1.1 417 ")
		c.End()
	})
}

func TestHandlerFailures(t *testing.T) {
	for path, panics := range map[string]uint64{"/silent": 0, "/abort": 0, "/panic": 1} {
		t.Run(path[1:], func(t *testing.T) {
			engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
				for i := range 3 {
					other, c := r.Client(r.address), r.Client(r.address)
					other.Send("GET /before HTTP/1.1\r\nHost: a\r\n\r\n")
					assert.Equal(t, "/before", other.Answer("GET").Text)
					c.Send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
					got, err := c.Rest()
					assert.Empty(t, got)
					assert.ErrorContains(t, err, "reset")
					assert.EqualValues(t, (i+1)*int(panics), r.Loop.Counters().Panics.Load())
					other.Send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n")
					assert.Equal(t, "/after", other.Answer("GET").Text)
				}
			})
		})
	}
}

func TestDraining(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		asked := make(chan struct{})
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
			close(asked)
			for !x.Loop.Draining() {
				x.Loop.Sleep(time.Millisecond)
			}
			text(x, "last")
		})
		c := r.Client(r.address)
		c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-asked
		r.Loop.Drain()
		resp := c.Answer("GET")
		assert.Equal(t, "last", resp.Text)
		assert.Equal(t, "close", rawConnection(resp), "the client must not send another one")
		c.End()
		r.Loop.Wait()
	})
}

func TestClosing(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) { x.Close(); text(x, "last") })
		c := r.Client(r.address)
		c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp := c.Answer("GET")
		assert.Equal(t, "last", resp.Text)
		assert.Equal(t, "close", rawConnection(resp))
		c.End()
	})
}

// A client that never reads is cut when its time is over, whether somebody waits
// for what is sent to it or not.
func TestWriteTimeout(t *testing.T) {
	large := []byte(strings.Repeat("x", 32<<20))
	for name, h := range map[string]handler{
		"waited for": func(x *exchange.Exchange) { text(x, string(large)) },
		"prepared": func(x *exchange.Exchange) {
			_ = x.SendPrepared(200, []byte("HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n"), append([]byte("\r\n"), large...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{Write: 100 * time.Millisecond}, h)
				c := r.Client(r.address)
				c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				r.Eventually("the request", func() bool { return r.stats.Requests.Load() == 1 })
				r.gone()
				// On a slow machine the time is over before the first byte has left.
				got, err := io.ReadAll(c.In)
				assert.Error(t, err, "a response that broke off ends with a reset")
				assert.Less(t, len(got), len(large))
			})
		})
	}
}

// net/http agrees with what is sent.
func TestStandardClient(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for range 3 {
			for path, want := range map[string]string{"/x": "/x", "/chunks": "somemore", "/until-close": "somemore", "/nothing": ""} {
				for _, method := range []string{"GET", "HEAD", "POST"} {
					if path != "/x" && method == "HEAD" {
						continue // the site sends these bodies all the same
					}
					request, err := http.NewRequest(method, "http://"+r.address+path, nil)
					assert.NoError(t, err)
					resp, err := client.Do(request)
					if !assert.NoError(t, err) {
						return
					}
					if method != "HEAD" {
						assert.Equal(t, want, readAll(t, resp))
					}
					assert.NoError(t, resp.Body.Close())
				}
			}
			resp, err := client.Post("http://"+r.address+"/echo", "text/plain", strings.NewReader(strings.Repeat("z", 100_000)))
			if assert.NoError(t, err) {
				assert.Equal(t, strings.Repeat("z", 100_000), readAll(t, resp))
				assert.NoError(t, resp.Body.Close())
			}
		}
	})
}

// A body without a length shows its size while it is read.
func TestBodyMaxOfChunks(t *testing.T) {
	engines(t, exchange.Config{BodyMax: 10}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		const head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		c.Send(head + "a\r\n0123456789\r\n0\r\n\r\n")
		assert.Equal(t, "0123456789", c.Answer("POST").Text)
		c.Send(head + "a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n")
		resp := c.Answer("POST")
		assert.Equal(t, "failed: "+relay.ErrTooLong.Error(), resp.Text)
		assert.Equal(t, "close", rawConnection(resp))
	})
}

// A body that is larger than we linger for: the answer is there all the same.
func TestUnreadBodyHuge(t *testing.T) {
	engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
		for range 5 {
			c := r.Client(r.address)
			c.Send("POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
			_, _ = c.Write(make([]byte, 20_000_000)) // cut at some point, by a reset
			assert.Equal(t, "/other", c.Answer("POST").Text)
		}
	})
}
