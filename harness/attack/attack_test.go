package attack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
	"atlas/scenarios"
)

const length = 1024

var document = string(origin.Document(length))

// serve runs a server in this process and returns it as a target.
func serve(t *testing.T, handler http.HandlerFunc) Target {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return Target{Address: server.Listener.Addr().String(), Path: "/1k.html", Length: length}
}

func right(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, document) }

// idle are the clocks of a server that never works.
var idle = Meters{Server: func() (time.Duration, error) { return 0, nil }}

// patient accepts any lateness: this machine's is not under test.
var patient = Generator{LateMax: time.Hour, CrowdMin: 1e-9}

func tiny(conns, rate int) Load {
	return Load{Conns: conns, Rate: rate, Warmup: 10 * time.Millisecond, Measured: 50 * time.Millisecond}
}

func TestMeasure(t *testing.T) {
	target := serve(t, right)
	for _, row := range []struct {
		name  string
		load  Load
		units []string
	}{
		{"closed", tiny(4, 0), []string{
			results.Throughput, results.Mean, results.P50, results.P99, results.ClientCPU, results.CPU, results.Errors,
		}},
		{"open", tiny(16, 200), []string{results.Mean, results.P99, results.RawMean, results.RawP99}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := Measure(t.Context(), patient, target, row.load, idle)
			require.NoError(t, err)
			require.Positive(t, s.Requests)
			for _, unit := range row.units {
				require.Contains(t, s.Values, unit)
			}
			require.Zero(t, s.Values[results.Errors])
			require.NotContains(t, s.Values, results.OriginCPU)
		})
	}
}

// requireInstalled returns the path of wrk; without it the test skips, but
// never where CI promises it.
func requireInstalled(t *testing.T) string {
	wrk, err := host.Find("wrk")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return wrk
}

func TestMeasureByWrk(t *testing.T) {
	wrk := requireInstalled(t)
	target := serve(t, right)
	g := Generator{Wrk: wrk, Scratch: t.TempDir(), Cores: host.Allowed()[:1]}
	s, err := Measure(t.Context(), g, target, tiny(4, 0), idle)
	require.NoError(t, err)
	require.Positive(t, s.Requests)
	require.Positive(t, s.Values[results.ClientCPU])
	require.Positive(t, s.Values[results.P99])

	// The warm-up is over before that many requests, the measured phase not.
	var served atomic.Int64
	target = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) > 100 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		right(w, r)
	})
	_, err = Measure(t.Context(), g, target, Load{Conns: 1, Warmup: time.Millisecond, Measured: time.Second}, idle)
	require.ErrorContains(t, err, "measured phase: ")
	require.ErrorContains(t, err, "status other than 2xx and 3xx")
	require.IsType(t, &Unsound{}, err)
}

func TestMeasureRefuses(t *testing.T) {
	other := strings.Repeat("x", length)
	var count atomic.Int64
	for _, row := range []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"server error", `answer "HTTP/1.1 500 Internal`, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
		}},
		{"redirect", `answer "HTTP/1.1 302 Found"`, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/", http.StatusFound)
		}},
		{"short body", "Content-Length 5, want 1024", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "short")
		}},
		{"other bytes", "body of the right length with other bytes", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, other)
		}},
		{"no length", "Content-Length none", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, document)
			w.(http.Flusher).Flush()
		}},
		{"errors after the warm-up", "measured phase: ", func(w http.ResponseWriter, r *http.Request) {
			if count.Add(1) > 30 {
				w.WriteHeader(503)
				return
			}
			right(w, r)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			load := tiny(4, 400)
			load.Measured = 200 * time.Millisecond
			_, err := Measure(t.Context(), patient, serve(t, row.handler), load, idle)
			require.ErrorContains(t, err, row.want)
			require.IsType(t, &Unsound{}, err)
		})
	}
}

// raw serves bytes written by hand, once per connection.
func raw(t *testing.T, answer string) Target {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte(answer))
			_ = c.Close()
		}
	}()
	return Target{Address: listener.Addr().String(), Path: "/", Length: length}
}

func TestMeasureRefusesBrokenAnswers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"
	for _, row := range []struct{ name, answer, want string }{
		{"nothing", "", "after 0 bytes of a head: EOF"},
		{"half a head", head[:20], "after 20 bytes of a head: EOF"},
		{"half a body", head + document[:512], "with 512 bytes of the body missing: EOF"},
		{"more than the body", head + document + "!", "1 bytes after the end of an answer"},
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", headMax), "head of more than 16384 bytes"},
		{"another protocol", "SSH-2.0\r\n\r\n", `answer "SSH-2.0"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Measure(t.Context(), patient, raw(t, row.answer), tiny(1, 100), idle)
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestMeasureRefusesSilence(t *testing.T) {
	hang := make(chan struct{})
	target := serve(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) }) // before the server waits for its handlers
	_, err := Measure(t.Context(), Generator{StallMax: 50 * time.Millisecond}, target, tiny(2, 100), idle)
	require.ErrorContains(t, err, "stalled for 50ms")

	dead := raw(t, "")
	dead.Address = "127.0.0.1:1"
	_, err = Measure(t.Context(), patient, dead, tiny(2, 100), idle)
	require.ErrorContains(t, err, "connection refused")
}

func TestMeasureInterrupted(t *testing.T) {
	for _, rate := range []int{0, 100} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		load := tiny(2, rate)
		load.Measured = time.Hour
		_, err := Measure(ctx, Generator{}, serve(t, right), load, idle)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

func TestMeasureMeters(t *testing.T) {
	target := serve(t, right)
	broken := errors.New("no such process")
	failing := func(err error) Meters { return Meters{Server: func() (time.Duration, error) { return 0, err }} }
	_, err := Measure(t.Context(), patient, target, tiny(1, 100), failing(broken))
	require.ErrorIs(t, err, broken)

	for _, unknown := range []error{host.ErrUnsupported, host.ErrNoProcess} {
		s, err := Measure(t.Context(), patient, target, tiny(1, 100), failing(unknown))
		require.NoError(t, err)
		require.NotContains(t, s.Values, results.CPU)
		require.NotContains(t, s.Values, results.ServerBusy)
		require.Contains(t, s.Values, results.ClientBusy)
		require.Contains(t, s.Notes[0], "CPU time of the server is not measured: "+unknown.Error())
	}

	// Each reading of the server's clock is 1 ms later: it never settles.
	var reads atomic.Int64
	busy := func() (time.Duration, error) { return time.Duration(reads.Add(1)) * time.Millisecond, nil }
	s, err := Measure(t.Context(), patient, target, tiny(1, 100), Meters{Server: busy, Origin: busy, Kernel: busy})
	require.NoError(t, err)
	require.Contains(t, s.Values, results.OriginCPU)
	require.Positive(t, s.Values[results.KernelCPU])
	require.LessOrEqual(t, s.Values[results.KernelCPU], s.Values[results.CPU])
	require.Positive(t, s.Values[results.CPU])
}

// Every request that is counted is answered, so each has exactly its calls; wrk, which
// would leave some unanswered, is not asked.
func TestMeasureCounts(t *testing.T) {
	var asked atomic.Uint64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		right(w, r)
	})
	meters := Meters{Server: idle.Server, Calls: func() (host.Calls, error) {
		return host.Calls{All: 3 * asked.Load(), Enters: asked.Load()}, nil
	}}
	g := patient
	g.Wrk = "/no/wrk"
	s, err := Measure(t.Context(), g, target, tiny(4, 0), meters)
	require.NoError(t, err)
	require.Positive(t, s.Requests)
	require.Equal(t, map[string]float64{results.Syscalls: 3, results.Enters: 1, results.Errors: 0}, s.Values)
	require.Empty(t, s.Histograms)

	broken := errors.New("no such process")
	meters.Calls = func() (host.Calls, error) { return host.Calls{}, broken }
	_, err = Measure(t.Context(), g, target, tiny(1, 0), meters)
	require.ErrorIs(t, err, broken)
}

// A server may close a connection after an answer; that is no error.
func TestReconnects(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		right(w, r)
	})
	s, err := Measure(t.Context(), patient, target, tiny(2, 200), idle)
	require.NoError(t, err)
	require.Positive(t, s.Requests)
}

func TestJudge(t *testing.T) {
	clocks := func(server, origin time.Duration) reading {
		return reading{server: server, origin: origin, origins: true}
	}
	second := phase{requests: 1000, wall: time.Second, clientCPU: 300 * time.Millisecond}
	const ms = time.Millisecond
	closed, open := Load{}, Load{Rate: 1000, Measured: time.Second}
	late := Load{Rate: 1100, Measured: 900 * ms}
	for _, row := range []struct {
		name      string
		load      Load
		after     reading
		clientCPU time.Duration
		refused   string
		note      string
	}{
		{"server is the limit", closed, clocks(950*ms, 0), 990 * ms, "", ""},
		{"generator is the limit", closed, clocks(500*ms, 0), 990 * ms, "", "generator saturated (99%"},
		{"with the origin it is", closed, clocks(500*ms, 500*ms), 490 * ms, "", "generator saturated (99%"},
		{"neither is", closed, clocks(500*ms, 0), 500 * ms, "", "server busy only 50%"},
		{"an idle server is right in an open loop", open, clocks(100*ms, 0), 500 * ms, "", ""},
		{"a busy generator is not", open, clocks(100*ms, 0), 990 * ms, "", "generator saturated"},
		{"rate missed", late, clocks(100*ms, 0), 0, "rate missed: 1000 of 1100", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := second
			p.clientCPU = row.clientCPU
			s, err := Generator{LateMax: 50 * time.Millisecond}.judge(p, Target{}, row.load, clocks(0, 0), row.after)
			if row.refused != "" {
				require.ErrorContains(t, err, row.refused)
				return
			}
			require.NoError(t, err)
			require.InDelta(t, float64(row.after.server)/1000, s.Values[results.CPU], 1e-6)
			require.InDelta(t, 1000, s.Values[results.Throughput], 1e-6)
			if row.note == "" {
				require.Empty(t, s.Notes)
				return
			}
			require.Len(t, s.Notes, 1)
			require.Contains(t, s.Notes[0], row.note)
		})
	}
	bulk := Target{Length: bulkMin}
	s, err := patient.judge(second, bulk, closed, clocks(0, 0), clocks(500*ms, 0))
	require.NoError(t, err)
	require.InDelta(t, 1000*bulkMin/0.5, s.Values[results.Bytes], 1)

	// A rate that may be the generator's is none of the server's.
	handshakes := Load{Of: scenarios.Handshakes}
	s, err = patient.judge(second, bulk, handshakes, clocks(0, 0), clocks(950*ms, 0))
	require.NoError(t, err)
	require.InDelta(t, 1000, s.Values[results.Handshakes], 1e-6)
	require.NotContains(t, s.Values, results.Bytes)
	second.clientCPU = 990 * ms
	s, err = patient.judge(second, bulk, handshakes, clocks(0, 0), clocks(500*ms, 0))
	require.NoError(t, err)
	require.NotContains(t, s.Values, results.Handshakes)
	require.InDelta(t, 500e3, s.Values[results.HandshakeCPU], 1e-6)

	// Of a server whose clock nobody reads, the generator's share is told all the same.
	s, err = patient.judge(second, Target{}, closed, reading{unknown: host.ErrNoProcess}, reading{})
	require.NoError(t, err)
	require.InDelta(t, 0.99, s.Values[results.ClientBusy], 1e-6)
	require.Len(t, s.Notes, 2)
	require.Contains(t, s.Notes[1], "generator saturated (99%")

	_, err = patient.judge(phase{}, Target{}, Load{}, reading{}, reading{})
	require.ErrorContains(t, err, "no request was completed")
}

func TestLittlesLaw(t *testing.T) {
	for _, row := range []struct {
		name string
		load Load
		mean time.Duration
		note bool
	}{
		{"all the time in flight", Load{Conns: 100}, 100 * time.Millisecond, false},
		{"a little less", Load{Conns: 100}, 60 * time.Millisecond, false},
		{"a stall that no answer tells of", Load{Conns: 100}, 40 * time.Millisecond, true},
		{"a stall that wrk makes up for", Load{Conns: 100}, 160 * time.Millisecond, true},
		{"open loop", Load{Conns: 100, Rate: 1000}, time.Millisecond, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.load.Of = scenarios.Requests
			p := phase{requests: 1000, wall: time.Second, latency: map[string]float64{results.Mean: float64(row.mean)}}
			s, err := Generator{LateMax: time.Second}.judge(p, Target{}, row.load, reading{}, reading{})
			require.NoError(t, err)
			require.Equal(t, row.note, strings.Contains(strings.Join(s.Notes, "\n"), "Little's law: "), s.Notes)
		})
	}
}

func TestParseWrk(t *testing.T) {
	const line = `LAB {"requests":10,"microseconds":1000000,"bytes":12000,` +
		`"connect":0,"read":0,"write":0,"status":0,"timeout":0,"mean_us":1.5,"p50_us":1,"p99_us":3}`
	r, err := parseWrk([]byte("Running 1s test\n" + line + "\n"))
	require.NoError(t, err)
	wire := sizes{least: 1200, most: 1200}
	p := r.phase(wire, 2)
	require.Zero(t, p.failures.count)
	require.Equal(t, 10, p.requests)
	require.Equal(t, time.Second, p.wall)
	require.InDelta(t, 1500, p.latency[results.Mean], 1e-9)

	for _, row := range []struct {
		name  string
		spoil func(*wrkReport)
		want  string
	}{
		{"status", func(r *wrkReport) { r.Status = 3 }, "3 status other than 2xx and 3xx"},
		{"timeout", func(r *wrkReport) { r.Timeout = 1 }, "1 timed out"},
		{"socket", func(r *wrkReport) { r.Read, r.Write, r.Connect = 1, 1, 1 }, "1 connect failed"},
		{"bodies too short", func(r *wrkReport) { r.Bytes = 11999 }, "11999 bytes for 10 answers"},
		{"bodies too long", func(r *wrkReport) { r.Bytes = 14401 }, "14401 bytes for 10 answers"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad := r
			row.spoil(&bad)
			p := bad.phase(wire, 2)
			require.ErrorContains(t, p.failures.refusal("measured phase"), row.want)
		})
	}
	_, err = parseWrk([]byte("unable to connect\n"))
	require.ErrorContains(t, err, "unable to connect")
	_, err = parseWrk([]byte("\nLAB {\"requests\":\n"))
	require.ErrorContains(t, err, "wrk's report")
}

func TestEager(t *testing.T) {
	e := eager{duration: time.Second, least: 10}
	for _, row := range []struct {
		elapsed time.Duration
		hits    uint64
		stop    bool
	}{{0, 0, false}, {time.Second - 1, 1000, false}, {time.Hour, 9, false}, {time.Second, 10, true}} {
		wait, stop := e.Pace(row.elapsed, row.hits)
		require.Zero(t, wait)
		require.Equal(t, row.stop, stop, "%+v", row)
	}
}

func TestPacer(t *testing.T) {
	p := newPacer(1000, 20*time.Millisecond)
	require.InDelta(t, 1000, p.Rate(0), 1e-9)
	hits := uint64(0)
	for {
		wait, stop := p.Pace(0, hits)
		require.Zero(t, wait, "the pacer sleeps itself")
		if stop {
			break
		}
		require.False(t, time.Now().Before(p.due(hits)), "never early")
		hits++
	}
	require.EqualValues(t, 20, hits)
	require.Equal(t, 19*time.Millisecond, p.due(19).Sub(p.began))
	require.EqualValues(t, 1, newPacer(10, time.Millisecond).hits, "at least one")
}

// The corrected latency holds the wait that the raw one leaves out.
func TestFoldCorrects(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		right(w, r)
	})
	// One connection, 20 ms an answer, due every 10 ms: the queue grows.
	load := Load{Conns: 1, Rate: 100, Warmup: 10 * time.Millisecond, Measured: 50 * time.Millisecond}
	transport := newTransport(target, 1)
	defer transport.close()
	p, err := Generator{StallMax: time.Minute}.drive(t.Context(), transport, load, load.Measured)
	require.NoError(t, err)
	require.Equal(t, 5, p.requests)
	require.Greater(t, p.latency[results.P99], p.latency[results.RawP99])
}

func TestFailures(t *testing.T) {
	var f failures
	require.NoError(t, f.refusal("x"))
	for i := range 10 {
		f.add(1, fmt.Sprint(i%6))
	}
	err := f.refusal("warm-up")
	require.EqualError(t, err, "warm-up: 10 errors; 0; 1; 2; 3")
}
