package forward_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/balance"
	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// named is an upstream that answers with its name.
func named(name string) func(*looptest.Peer, int) {
	return looptest.Answers("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)
}

// Requests are shared out one by one, whichever connection they come on.
func TestSpread(t *testing.T) {
	for _, row := range []struct {
		strategy balance.Strategy
		weights  []int
		want     map[string]float64 // share
		exact    bool
	}{
		{balance.RoundRobin, []int{1, 1, 1}, map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3}, true},
		{balance.RoundRobin, []int{2, 1, 0}, map[string]float64{"a": 2. / 3, "b": 1. / 3}, true},
		{balance.LeastConnections, []int{1, 1, 1}, map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3}, true},
		{balance.Random, []int{2, 1, 0}, map[string]float64{"a": 2. / 3, "b": 1. / 3}, false},
	} {
		t.Run(fmt.Sprintf("%s %v", row.strategy, row.weights), func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				r := proxyOn(e, setup{strategy: row.strategy, weights: row.weights},
					e.Script(named("a")).Address, e.Script(named("b")).Address, e.Script(named("c")).Address)
				const requests = 300
				got := make(map[string]int)
				c := r.Client(r.address)
				c.Send(strings.Repeat(get, requests)) // on one connection
				for range requests {
					got[c.Answer("GET").Text]++
				}
				assert.Len(t, got, len(row.want))
				for name, share := range row.want {
					if row.exact {
						assert.Equal(t, int(share*requests+0.5), got[name], name)
					} else {
						assert.InDelta(t, share*requests, got[name], 50, name)
					}
				}
			})
		})
	}
}

// An upstream that is busy with what it has gets no more, while another is not.
func TestLeastConnections(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		release, held := make(chan struct{}), make(chan string, 1)
		var first atomic.Bool
		script := func(name string) func(*looptest.Peer, int) {
			return func(p *looptest.Peer, _ int) {
				for p.Head() != "" {
					if first.CompareAndSwap(false, true) {
						held <- name
						<-release
					}
					p.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)
				}
			}
		}
		r := proxyOn(e, setup{}, e.Script(script("a")).Address, e.Script(script("b")).Address)
		stuck, c := r.Client(r.address), r.Client(r.address)
		stuck.Send(get)
		busy := <-held
		for range 20 {
			c.Send(get)
			assert.NotEqual(t, busy, c.Answer("GET").Text)
		}
		close(release)
		assert.Equal(t, busy, stuck.Answer("GET").Text)
		got := make(map[string]int)
		for range 20 {
			c.Send(get)
			got[c.Answer("GET").Text]++
		}
		assert.Equal(t, map[string]int{"a": 10, "b": 10}, got, "both are idle again")
	})
}

// While the worker drains, what is in flight ends, and no connection stays.
func TestDrain(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		asked <- struct{}{}
		<-release
		p.Send(ok)
		p.Gone()
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		<-asked
		r.Loop.Drain()
		release <- struct{}{}
		resp := c.Answer("GET")
		assert.Equal(t, "ok", resp.Text)
		assert.True(t, resp.Close)
		c.End()
		r.Loop.Wait()
		assert.Zero(t, r.Loop.Counters().Dialled.Load())
		assert.Zero(t, r.group.Active())
	})
}

// When the worker stops, nothing stays either.
func TestStop(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		var asked atomic.Int64
		r := proxyOn(e, setup{}, e.Script(func(p *looptest.Peer, _ int) {
			p.Head()
			asked.Add(1)
			p.Gone()
		}).Address)
		requests := []string{get, post, chunkedPost, chunkedPost + "5\r\nhello\r\n", chunkedPost + "5\r\nhello\r\n0\r\n\r\n"}
		for _, request := range requests {
			r.Client(r.address).Send(request)
		}
		r.Eventually("the requests", func() bool { return asked.Load() == int64(len(requests)) })
		r.Loop.Stop()
		r.Loop.Wait()
		assert.Zero(t, r.Loop.Counters().Open.Load())
		assert.Zero(t, r.group.Active())
	})
}

// load is the work of one test: many clients, each with requests of its own.
type load struct {
	clients, requests int
	sizeMax           int // a quarter of the bodies are large
}

// thinned is the load as far as the run has time for it.
func thinned(l load) load {
	if testing.Short() || invariant.Enabled { // the race detector comes with invariants
		l.requests = max(1, l.requests/8)
	}
	return l
}

// each runs do for every request, with a client each goroutine.
func (l load) each(t *testing.T, do func(client *http.Client, rng *rand.Rand, name string) error) {
	var clients sync.WaitGroup
	for i := range l.clients {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%10 == 9}, Timeout: 3 * patience}
			defer client.CloseIdleConnections()
			for n := range l.requests {
				if err := do(client, rng, fmt.Sprintf("client %d, request %d", i, n)); err != nil {
					t.Errorf("client %d, request %d: %v", i, n, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// body is random in size and content.
func (l load) body(rng *rand.Rand) []byte {
	size := rng.IntN(4000)
	if rng.IntN(4) == 0 {
		size = rng.IntN(l.sizeMax)
	}
	p := make([]byte, size)
	for i := 0; i+8 <= len(p); i += 8 {
		for k, v := 0, rng.Uint64(); k < 8; k, v = k+1, v>>8 {
			p[i+k] = byte(v)
		}
	}
	return p
}

// ask sends a body in a random framing and wants it back.
func ask(client *http.Client, rng *rand.Rand, url string, body []byte) error {
	var reader io.Reader = bytes.NewReader(body)
	if rng.IntN(2) == 0 {
		reader = struct{ io.Reader }{reader} // in chunks
	}
	query := []string{"", "?chunked", "?close"}[rng.IntN(20)%3]
	request, err := http.NewRequest("PUT", url+"/"+query, reader)
	if err != nil {
		return err
	}
	resp, err := client.Do(request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != 200:
		return fmt.Errorf("status %d: %.100s", resp.StatusCode, got)
	case !bytes.Equal(got, body):
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), len(body))
	}
	return nil
}

func TestManyClients(t *testing.T) {
	l := thinned(load{clients: 50, requests: 80, sizeMax: 100_000})
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, server(e, mirror), server(e, mirror))
		l.each(t, func(client *http.Client, rng *rand.Rand, name string) error {
			return ask(client, rng, "http://"+r.address, l.body(rng))
		})
		r.settled()
		r.blamed(nil, nil)
		assert.EqualValues(t, l.clients*l.requests, r.stats.Responses[1].Load())
		assert.Zero(t, r.Loop.Counters().Panics.Load())
	})
}

// The same with next to no memory to receive into.
func TestScarceBuffers(t *testing.T) {
	l := thinned(load{clients: 20, requests: 40, sizeMax: 20_000})
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1, Buffers: 4, BufferBytes: 64})
		r := proxyOn(e, setup{}, server(e, mirror))
		l.each(t, func(client *http.Client, rng *rand.Rand, name string) error {
			return ask(client, rng, "http://"+r.address, l.body(rng))
		})
		r.settled()
		r.blamed(nil, nil)
	})
}

// echo sends back what it reads, while it reads.
func echo(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	_, _ = io.Copy(w, r.Body)
}

// Bodies of 10 MB to and fro at the same time, several of them.
func TestLargeBothWays(t *testing.T) {
	const size = 10_000_000
	body := looptest.Pattern(size)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, server(e, echo))
		var clients sync.WaitGroup
		for i := range 4 {
			framing := fmt.Sprintf("Content-Length: %d", size)
			if i%2 == 1 {
				framing = "Transfer-Encoding: chunked"
			}
			c := r.Dial(r.address)
			assert.NoError(t, c.SetDeadline(time.Now().Add(12*patience))) // the machine may be busy
			clients.Go(func() {
				go func() {
					_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\n"+framing+"\r\n\r\n")
					for rest := body; len(rest) > 0; {
						n := min(len(rest), 1+i*50_000)
						if i == 0 {
							n = len(rest)
						}
						piece := rest[:n]
						if i%2 == 1 {
							_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", n, piece)
						} else {
							_, _ = c.Write(piece)
						}
						rest = rest[n:]
					}
					if i%2 == 1 {
						_, _ = io.WriteString(c, "0\r\n\r\n")
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if !assert.NoError(t, err) {
					return
				}
				got, err := io.ReadAll(resp.Body)
				assert.NoError(t, err)
				assert.True(t, bytes.Equal(body, got), "client %d: the body has changed", i)
			})
		}
		clients.Wait()
		r.settled()
		r.blamed(nil, nil)
	})
}

// faulty mirrors, or does one of the things that upstreams do to proxies.
func faulty(w http.ResponseWriter, r *http.Request) {
	hijack := func(text string, reset bool) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, text)
		if reset {
			_ = c.(*net.TCPConn).SetLinger(0) // fails on a closed socket only
		}
		_ = c.Close()
	}
	switch r.URL.Path {
	case "/close":
		hijack("", false)
	case "/reset":
		hijack("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", true)
	case "/early":
		hijack("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false)
	case "/nonsense":
		hijack("nonsense\r\n\r\n", false)
	case "/truncate":
		hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false)
	case "/slow":
		time.Sleep(5 * time.Millisecond)
		mirror(w, r)
	default:
		mirror(w, r)
	}
}

// Everything that can go wrong goes wrong for some clients, while others get
// their own bodies, whole. What is left behind: nothing.
func TestChaos(t *testing.T) {
	l := thinned(load{clients: 40, requests: 32, sizeMax: 200_000})
	paths := []string{"/close", "/reset", "/early", "/nonsense", "/truncate", "/slow"}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, server(e, faulty), refusing(t), server(e, faulty))
		l.each(t, func(client *http.Client, rng *rand.Rand, name string) error {
			switch rng.IntN(4) {
			case 0: // what comes of it is the upstream's fault
				url := "http://" + r.address + paths[rng.IntN(len(paths))]
				resp, err := client.Post(url, "", bytes.NewReader(l.body(rng)))
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				return nil
			case 1:
				return leave(rng, r.address, l.body(rng))
			}
			err := ask(client, rng, "http://"+r.address, l.body(rng))
			if err != nil && strings.Contains(err.Error(), "502 Bad Gateway: the upstream closed the connection") {
				return nil // behind /early, on the same connection: a body on its way is not sent twice
			}
			return err
		})
		r.settled()
		assert.Zero(t, r.Loop.Counters().Panics.Load())
	})
}

// leave asks for something and goes away at a random moment.
func leave(rng *rand.Rand, address string, body []byte) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	text := fmt.Sprintf("PUT /slow?chunked HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(c, text[:1+rng.IntN(len(text))]); err != nil {
		return err
	}
	if rng.IntN(2) == 0 {
		err := c.SetReadDeadline(time.Now().Add(time.Duration(rng.IntN(10)) * time.Millisecond))
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, struct{ io.Reader }{c}, int64(1+rng.IntN(1+len(body))))
		var timeout net.Error
		if err != nil && err != io.EOF && !errors.As(err, &timeout) {
			return err
		}
	}
	if rng.IntN(2) == 0 {
		return c.(*net.TCPConn).SetLinger(0)
	}
	return nil
}
