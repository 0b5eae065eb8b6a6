package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// addresses are that many that nobody dials.
func addresses(n int) (all []loop.Address) {
	for i := range n {
		all = append(all, loop.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1))})
	}
	return all
}

// picks counts what that many picks choose, by the upstream's name. Each exchange
// ends at once.
func (r *rig) picks(n int, tried ...int) map[string]int {
	got := make(map[string]int)
	r.Post(func() {
		r.pool.refresh()
		var without []*Target
		for _, i := range tried {
			without = append(without, r.pool.targets[i])
		}
		for range n {
			t, err := r.pool.Pick(balance.Request{Now: int64(r.Loop.Now())}, without)
			if err != nil {
				got[err.Error()]++
				continue
			}
			got[t.Name]++
			r.pool.Done(t)
		}
	})
	return got
}

func (r *rig) fail(i, times int) {
	r.Post(func() {
		for range times {
			r.pool.Failed(r.pool.targets[i], 0)
		}
	})
}

func TestPick(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1}, {Weight: 1}, {Weight: 0}}
		r.to(addresses(3)...)
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, r.picks(10))
		assert.Equal(t, map[string]int{"b": 10}, r.picks(10, 0))
		assert.Equal(t, map[string]int{ErrNone.Error(): 1}, r.picks(1, 0, 1))
		assert.Zero(t, r.pool.group.Active(), "round robin counts none")
	})
}

// Workers see each other's exchanges, where the strategy looks at them.
func TestPickLeast(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Strategy = balance.LeastConnections
		r.to(addresses(2)...)
		other := New(r.Loop, r.config)
		r.Post(func() {
			first, err := r.pool.Pick(balance.Request{}, nil)
			assert.NoError(t, err)
			for range 3 {
				second, err := other.Pick(balance.Request{}, nil)
				assert.NoError(t, err)
				assert.NotEqual(t, first.Name, second.Name)
				other.Done(second)
			}
			assert.Equal(t, 1, r.pool.group.Active())
			r.pool.Done(first)
		})
		assert.Zero(t, r.pool.group.Active())
	})
}

// Failures in a row eject; a success in between starts anew.
func TestEject(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Eject = time.Hour
		r.to(addresses(4)...)
		r.fail(0, failuresMax-1)
		r.Post(func() { r.pool.Succeeded(r.pool.targets[0], time.Millisecond) })
		r.fail(0, failuresMax-1)
		assert.Equal(t, map[string]int{"a": 2, "b": 2, "c": 2, "d": 2}, r.picks(8))
		r.fail(0, 1)
		assert.Equal(t, map[string]int{"b": 2, "c": 2, "d": 2}, r.picks(6))
		r.fail(1, failuresMax)
		assert.Equal(t, map[string]int{"c": 3, "d": 3}, r.picks(6))
		r.fail(2, failuresMax)
		assert.Equal(t, map[string]int{"c": 3, "d": 3}, r.picks(6), "half are out: the fault is elsewhere")
		assert.Equal(t, map[string]int{"a": 1, "b": 1}, r.picks(2, 2, 3), "for a request that has tried the others")
		assert.Equal(t, map[string]int{ErrNone.Error(): 1}, r.picks(1, 0, 1, 2, 3))
	})
}

// One that is alone is never ejected: there is nothing better.
func TestEjectNotTheOnlyOne(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(addresses(1)...)
		r.fail(0, 10*failuresMax)
		assert.Equal(t, map[string]int{"a": 5}, r.picks(5))
	})
}

// An ejection ends; the next failure starts one of twice the time.
func TestEjectAgain(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Eject = 100 * time.Millisecond
		r.to(addresses(2)...)
		e := r.pool.group.Endpoints()[0]
		r.fail(0, failuresMax)
		for i := range 3 {
			assert.Equal(t, r.options.Eject<<i, e.ejected)
			r.Eventually("it to be back", func() bool { return r.picks(2)["a"] == 1 })
			assert.NotZero(t, e.since.Load(), "for a slow start")
			r.fail(0, 1)
			assert.False(t, e.up())
		}
		e.ejected = ejectMost
		r.Post(func() { r.pool.group.readmit(r.Loop.Now().After(time.Hour)) })
		r.fail(0, 1)
		assert.Equal(t, ejectMost, e.ejected, "and no longer than that")
		r.Post(func() {
			r.pool.group.readmit(r.Loop.Now().After(time.Hour))
			e.since.Store(int64(r.Loop.Now().After(-time.Hour)))
		})
		r.fail(0, 1)
		assert.Equal(t, r.options.Eject, e.ejected, "long ago is forgotten")
	})
}

// Each address of a name is an endpoint; together they have the upstream's share.
func TestNames(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		var found atomic.Value
		found.Store([]netip.Addr{netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("192.0.2.7")})
		asked := make(chan string, 100)
		r.options.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			asked <- host
			addrs := found.Load().([]netip.Addr)
			if len(addrs) == 0 {
				return nil, errors.New("no such host")
			}
			return addrs, nil
		}
		r.options.Upstreams = []Upstream{{Weight: 1}, {Weight: 1, Host: "app.test", Port: 80}}
		r.to(addresses(2)...)
		byAddress := func(n int) map[string]int {
			got := make(map[string]int)
			r.Post(func() {
				for range n {
					target, err := r.pool.Pick(balance.Request{}, nil)
					assert.NoError(t, err)
					got[target.Address.String()]++
				}
			})
			return got
		}
		want := map[string]int{"192.0.2.1:1": 4, "192.0.2.7:80": 2, "192.0.2.8:80": 2}
		assert.Equal(t, want, byAddress(8))
		assert.Equal(t, "app.test", <-asked)

		seven := r.pool.group.Endpoints()[1]
		seven.failures.Store(2)
		found.Store([]netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.9"),
			netip.MustParseAddr("::ffff:192.0.2.9"), netip.MustParseAddr("192.0.2.10")})
		r.Eventually("a look that was asked for", func() bool {
			r.pool.group.lookSoon(seven)
			return len(r.pool.group.Endpoints()) == 4
		})
		assert.Equal(t, map[string]int{"192.0.2.1:1": 6, "192.0.2.7:80": 2, "192.0.2.9:80": 2, "192.0.2.10:80": 2},
			byAddress(12))
		assert.Same(t, seven, r.pool.group.Endpoints()[1], "what stays keeps its state")

		found.Store([]netip.Addr{})
		for len(asked) > 0 {
			<-asked
		}
		r.pool.group.lookSoon(seven)
		assert.Equal(t, "app.test", <-asked)
		assert.Len(t, r.pool.group.Endpoints(), 4, "a look that fails changes nothing")
	})
}

// A resolver that hangs keeps nobody waiting.
func TestSlowLookup(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		var asked atomic.Int64
		r.options.Lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
			if asked.Add(1) > 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
		}
		r.options.Upstreams = []Upstream{{Weight: 1, Host: "app.test", Port: 80}}
		r.to(addresses(1)...)
		r.pool.group.lookSoon(r.pool.group.Endpoints()[0])
		r.Eventually("it to hang", func() bool { return asked.Load() == 2 })
		assert.Equal(t, map[string]int{"a": 100}, r.picks(100))
	})
}

// A name that has no address yet gets requests when it has.
func TestNameWithoutAddress(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		var known atomic.Bool
		r.options.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			if !known.Load() {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
		}
		r.options.Upstreams = []Upstream{{Weight: 1, Host: "app.test", Port: 80}}
		r.to(addresses(1)...)
		assert.Equal(t, map[string]int{ErrNoAddress.Error(): 1}, r.picks(1))
		known.Store(true)
		r.Eventually("its address", func() bool { return r.picks(1)["a"] == 1 })
	})
}

// Idle connections to an address that its name has lost are closed, and one in
// use is not kept.
func TestNameMoves(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		s := r.Script(silent)
		var here atomic.Value
		here.Store(s.Address.AddrPort.Addr())
		r.options.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{here.Load().(netip.Addr)}, nil
		}
		r.options.Upstreams = []Upstream{{Weight: 1, Host: "app.test", Port: s.Address.AddrPort.Port()}}
		r.to(loop.Address{})
		var busy *Conn
		r.Task(func() {
			busy = r.take(false)
			r.take(true).Release(Forever)
		})
		here.Store(netip.MustParseAddr("127.0.0.2"))
		r.pool.group.lookSoon(r.pool.group.Endpoints()[0])
		r.Eventually("the move", func() bool {
			r.picks(1)
			return r.Loop.Counters().Dialled.Load() == 1
		})
		r.Task(func() { busy.Release(Forever) })
		r.Eventually("the last connection to close", func() bool { return r.Loop.Counters().Dialled.Load() == 0 })
	})
}

func TestUsable(t *testing.T) {
	parse := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	assert.Equal(t, parse("127.0.0.1"), usable(parse("::1", "127.0.0.1")), "localhost")
	assert.Equal(t, parse("192.0.2.1", "192.0.2.2"), usable(parse("192.0.2.1", "192.0.2.2")))
	assert.Equal(t, parse("::1"), usable(parse("::1")), "better than nothing")
	if !routed(netip.MustParseAddr("2001:db8::1")) {
		assert.Equal(t, parse("192.0.2.1"), usable(parse("2001:db8::1", "192.0.2.1")), "no route there")
	}
}

// Checks that fail in a row take an endpoint out, and successes bring it back.
func TestCheck(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		var status atomic.Int64
		status.Store(204)
		var mu sync.Mutex
		seen := make(map[string]bool)
		handler := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			mu.Lock()
			seen[request.Method+" "+request.RequestURI+" "+request.UserAgent()] = true
			mu.Unlock()
			w.WriteHeader(int(status.Load()))
		})
		sick := httptest.NewServer(handler)
		defer sick.Close()
		socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		require.NoError(t, err)
		well := &httptest.Server{Listener: socket, Config: &http.Server{Handler: http.NotFoundHandler()}}
		well.Config.Handler = http.RedirectHandler("/elsewhere", http.StatusFound)
		well.Start()
		defer well.Close()
		r.options.SlowStart = time.Nanosecond
		check := &Check{Path: "/healthz?a", Interval: 5 * time.Millisecond, Timeout: patience, Fall: 3, Rise: 2}
		r.options.Upstreams = []Upstream{{Weight: 1, Check: check}, {Weight: 1, Check: check}}
		r.to(loop.Address{AddrPort: sick.Listener.Addr().(*net.TCPAddr).AddrPort()}, loop.Address{Path: socket.Addr().String()})
		asked := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen["GET /healthz?a atlas health check"]
		}
		r.Eventually("a check", asked)
		assert.Equal(t, map[string]int{"a": 2, "b": 2}, r.picks(4), "a redirection is healthy")

		status.Store(500)
		r.Eventually("it to be down", func() bool { return r.picks(4)["b"] == 4 })
		assert.Equal(t, map[string]int{ErrNone.Error(): 1}, r.picks(1, 1), "also for a request that failed elsewhere")
		status.Store(399)
		r.Eventually("it to be up", func() bool { return r.picks(4)["a"] == 2 })
		assert.NotZero(t, r.pool.group.Endpoints()[0].since.Load())
	})
}

// What is refused, does not answer in time, or answers something else is a miss.
func TestCheckMisses(t *testing.T) {
	e := looptest.New(t, loop.Config{Engine: loop.Netpoll, CPU: -1})
	nobody := fmt.Sprintf("127.0.0.1:%d", looptest.FreePort(t))
	for name, row := range map[string]struct {
		address loop.Address
		want    string
	}{
		"refused":  {loop.Address{AddrPort: netip.MustParseAddrPort(nobody)}, "connection refused"},
		"silent":   {e.Script(silent).Address, "deadline exceeded"},
		"nonsense": {e.Script(func(p *looptest.Peer, _ int) { p.Head(); p.Send("SSH-2.0\r\n"); p.Gone() }).Address, "malformed"},
		"status":   {e.Script(looptest.Answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")).Address, "status 404"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &member{Upstream: Upstream{Check: &Check{Path: "/", Timeout: patience}}}
			if name == "silent" {
				m.Check.Timeout = 50 * time.Millisecond
			}
			err := ask(t.Context(), m, &Endpoint{Address: row.address})
			assert.ErrorContains(t, err, row.want)
		})
	}
}
