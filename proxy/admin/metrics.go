package admin

import (
	"context"
	"runtime"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/server"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// prefix is in front of the name of every metric of ours.
const prefix = "atlas_"

// gathered is what one scrape is made of.
type gathered struct {
	server.Status
	running    bool // else there is no Status yet
	version    string
	logDropped int64
}

// emit exports one value of a metric.
type emit func(value float64, labels ...string)

// metric is one that is read from what was gathered. docs/metrics.md is made of
// these rows.
type metric struct {
	name   string // without the prefix
	kind   prometheus.ValueType
	labels []string
	help   string
	read   func(g *gathered, out emit)
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// processMetrics are those of the process as a whole.
func processMetrics() []metric {
	return []metric{
		{"build_info", gauge, []string{"version", "go", "os", "arch"},
			"Always 1; what this program was built from.",
			func(g *gathered, out emit) { out(1, g.version, runtime.Version(), runtime.GOOS, runtime.GOARCH) }},
		{"ready", gauge, nil,
			"Whether new connections should be sent here, as /readyz says.",
			func(g *gathered, out emit) { out(number(g.Ready)) }},
		{"engine_info", gauge, []string{"engine", "reason"},
			"Always 1; how the workers do their I/O, and why so.",
			func(g *gathered, out emit) {
				if g.running {
					out(1, string(g.Engine), g.EngineReason)
				}
			}},
		{"workers", gauge, nil,
			"Workers of this process.",
			func(g *gathered, out emit) { out(float64(len(g.Workers))) }},
		{"config_last_reload_successful", gauge, nil,
			"1 if the configuration in use is what was read last, 0 if that was refused.",
			func(g *gathered, out emit) { out(number(len(g.Reloads.Errors) == 0)) }},
		{"config_active_timestamp_seconds", gauge, nil,
			"When the configuration in use came into use, in seconds since 1970.",
			func(g *gathered, out emit) { out(float64(g.Reloads.Active.Unix())) }},
		{"config_reloads_total", counter, []string{"result"},
			"Reloads of the configuration, by what became of them.",
			func(g *gathered, out emit) {
				out(float64(g.Reloads.Applied), "applied")
				out(float64(g.Reloads.Failed), "failed")
			}},
		{"upgrades_failed_total", counter, nil,
			"Processes that were to take the place of this one and did not.",
			func(g *gathered, out emit) { out(float64(g.Upgrades.Failed)) }},
		{"certificate_errors", gauge, nil,
			"Files of certificates and what belongs to them that are not in use, as something is wrong with them.",
			func(g *gathered, out emit) { out(float64(len(g.CertificateErrors))) }},
		{"log_dropped_total", counter, []string{"what"},
			"What was not written to the log: failures that came faster than it takes them, and lines that " +
				"nobody read in time or that could not be written.",
			func(g *gathered, out emit) {
				out(float64(g.Unlogged), "failures")
				out(float64(g.logDropped), "lines")
			}},
		{"certificate_not_after_timestamp_seconds", gauge, []string{"file"},
			"When a certificate of the listener ends, in seconds since 1970.",
			func(g *gathered, out emit) {
				for _, c := range g.Certificates {
					out(float64(c.NotAfter.Unix()), c.File)
				}
			}},
	}
}

// number is 1 for true.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// workerMetrics are those that each worker counts for itself. They have its number
// as a label: how evenly connections are shared out is in them.
func workerMetrics() []metric {
	of := func(read func(c *loop.Counters) float64) func(*gathered, emit) {
		return func(g *gathered, out emit) {
			for i := range g.Workers {
				out(read(g.Workers[i].Loop), strconv.Itoa(i))
			}
		}
	}
	label := []string{"worker"}
	return []metric{
		{"worker_requests_total", counter, label, "Request heads that a worker has read.",
			func(g *gathered, out emit) {
				for i := range g.Workers {
					out(float64(g.Workers[i].Requests), strconv.Itoa(i))
				}
			}},
		{"connections_accepted_total", counter, label, "Connections of clients that a worker serves or has served.",
			of(func(c *loop.Counters) float64 { return float64(c.Accepted.Load()) })},
		{"connections_handed_over_total", counter, label,
			"Connections that came to this worker, and that it left to another one which had fewer.",
			of(func(c *loop.Counters) float64 { return float64(c.Handed.Load()) })},
		{"connections_open", gauge, label, "Connections of clients that are open.",
			of(func(c *loop.Counters) float64 { return float64(c.Open.Load()) })},
		{"connections_skew_ratio", gauge, nil,
			"Open connections of the worker that has most, divided by the mean of all workers; 1 is even.",
			func(g *gathered, out emit) { out(skew(g.Workers)) }},
		{"accepts_failed_total", counter, label, "Accepts that failed because there was no descriptor left.",
			of(func(c *loop.Counters) float64 { return float64(c.Refused.Load()) })},
		{"upstream_connections_open", gauge, label, "Connections to upstreams that are open, idle ones included.",
			of(func(c *loop.Counters) float64 { return float64(c.Dialled.Load()) })},
		{"tasks", gauge, label, "Tasks that exist, those included that wait for work.",
			of(func(c *loop.Counters) float64 { return float64(c.Tasks.Load()) })},
		{"task_panics_total", counter, label, "Tasks that panicked; the connection was reset. This is a bug.",
			of(func(c *loop.Counters) float64 { return float64(c.Panics.Load()) })},
		{"ring_enters_total", counter, label, "System calls that entered the ring (io_uring).",
			of(func(c *loop.Counters) float64 { return float64(c.Enters.Load()) })},
		{"ring_enters_per_request", gauge, nil,
			"ring_enters_total divided by requests_total, since the start; 0 without requests.",
			func(g *gathered, out emit) { out(entersPerRequest(g.Workers)) }},
		{"ring_starved_total", counter, label, "Receives that found no buffer and had to wait for one (io_uring).",
			of(func(c *loop.Counters) float64 { return float64(c.Starved.Load()) })},
		{"ring_overflows_total", counter, label,
			"System calls after which there were more completions than the ring's queue holds (io_uring).",
			of(func(c *loop.Counters) float64 { return float64(c.Overflow.Load()) })},
		{"pipes_open", gauge, label, "Pipes that tunnels use to move bytes.",
			of(func(c *loop.Counters) float64 { return float64(c.Pipes.Load()) })},
		{"spliced_bytes_total", counter, label, "Bytes that tunnels moved by pipes, without copying them.",
			of(func(c *loop.Counters) float64 { return float64(c.Spliced.Load()) })},
		{"cold_reads_total", counter, label, "Pieces of files that were brought into memory before they were sent.",
			of(func(c *loop.Counters) float64 { return float64(c.Cold.Load()) })},
	}
}

// skew is how unevenly connections are shared out.
func skew(workers []server.WorkerStatus) float64 {
	var most, sum int64
	for i := range workers {
		n := workers[i].Loop.Open.Load()
		most, sum = max(most, n), sum+n
	}
	if sum <= 0 {
		return 1
	}
	return float64(most) * float64(len(workers)) / float64(sum)
}

func entersPerRequest(workers []server.WorkerStatus) float64 {
	var enters, requests float64
	for i := range workers {
		enters += float64(workers[i].Loop.Enters.Load())
		requests += float64(workers[i].Requests)
	}
	if requests == 0 {
		return 0
	}
	return enters / requests
}

// upstreamMetrics are those of each address of each upstream.
func upstreamMetrics() []metric {
	of := func(read func(e *upstream.EndpointReport) float64) func(*gathered, emit) {
		return func(g *gathered, out emit) {
			for i := range g.Upstreams.Endpoints {
				e := &g.Upstreams.Endpoints[i]
				out(read(e), e.Upstream, e.Address)
			}
		}
	}
	label := []string{"upstream", "address"}
	return []metric{
		{"upstream_state", gauge, []string{"upstream", "address", "state"},
			"1 for the state that an address is in, 0 for the others: up; ejected, for a time after failures in a " +
				"row; down, by health checks; drained, by an operator.",
			func(g *gathered, out emit) {
				for i := range g.Upstreams.Endpoints {
					e := &g.Upstreams.Endpoints[i]
					for _, state := range upstream.States() {
						out(number(e.State == state), e.Upstream, e.Address, string(state))
					}
				}
			}},
		{"upstream_weight", gauge, label, "Weight of the upstream, as it is configured.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.Weight) })},
		{"upstream_requests_total", counter, label, "Requests, or connections in tcp mode, that it was chosen for.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.Requests) })},
		{"upstream_requests_in_flight", gauge, label, "Connections to it that are in use or being made for a request.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.InFlight) })},
		{"upstream_connections_idle", gauge, label, "Connections to it that wait for a request.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.Idle) })},
		{"upstream_failures_total", counter, label,
			"Connections to it that were refused or lost, and responses that did not come.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.Failures) })},
		{"upstream_failures_in_a_row", gauge, label, "Of these, how many since its last response.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.FailuresInRow) })},
		{"upstream_ejections_total", counter, label, "Times that failures in a row took it out for a while.",
			of(func(e *upstream.EndpointReport) float64 { return float64(e.Ejections) })},
		{"upstream_checks_total", counter, []string{"upstream", "address", "result"},
			"Health checks of it, by their result.",
			func(g *gathered, out emit) {
				for i := range g.Upstreams.Endpoints {
					e := &g.Upstreams.Endpoints[i]
					out(float64(e.Checks.Passed), e.Upstream, e.Address, "passed")
					out(float64(e.Checks.Failed), e.Upstream, e.Address, "failed")
				}
			}},
		{"upstream_queue_length", gauge, nil, "Requests that wait for an upstream with max_connections to have room.",
			func(g *gathered, out emit) { out(float64(g.Upstreams.Waiting)) }},
		{"retry_budget_tries", gauge, nil, "Further tries of requests that retry_budget allows now.",
			func(g *gathered, out emit) { out(float64(g.Upstreams.TriesLeft)) }},
	}
}

// metrics are all that are not counted in package stats.
func metrics() []metric {
	all := append(processMetrics(), workerMetrics()...)
	return append(all, upstreamMetrics()...)
}

// collector turns what is gathered into metrics, once for each scrape.
type collector struct {
	admin   *Admin
	metrics []metric
	descs   []*prometheus.Desc          // of metrics
	counted map[string]*prometheus.Desc // of stats.Value and stats.Distribution
	bounds  []float64                   // of the buckets of the latter
}

func newRegistry(a *Admin) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(a),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func newCollector(a *Admin) *collector {
	c := &collector{admin: a, metrics: metrics(), counted: make(map[string]*prometheus.Desc)}
	for i := range c.metrics {
		m := &c.metrics[i]
		c.descs = append(c.descs, prometheus.NewDesc(prefix+m.name, m.help, m.labels, nil))
	}
	counters, times := counted()
	for _, v := range counters {
		c.counted[v.Name] = prometheus.NewDesc(prefix+v.Name, v.Help, labelsOf(v.Label), nil)
	}
	for _, d := range times {
		c.counted[d.Name] = prometheus.NewDesc(prefix+d.Name, d.Help, labelsOf(d.Label), nil)
	}
	for _, bound := range stats.Bounds() {
		c.bounds = append(c.bounds, bound.Seconds())
	}
	return c
}

// counted are one of each name that package stats counts.
func counted() (counters []stats.Value, times []stats.Distribution) {
	example := stats.NewSet(1, h1.Labels())
	example.Worker(0).Upstream("example")
	counters, times = example.Snapshot(nil), example.Distributions(nil)
	counters = slices.CompactFunc(counters, func(a, b stats.Value) bool { return a.Name == b.Name })
	times = slices.CompactFunc(times, func(a, b stats.Distribution) bool { return a.Name == b.Name })
	return counters, times
}

func labelsOf(label string) []string {
	if label == "" {
		return nil
	}
	return []string{label}
}

// Describe names everything that Collect may export.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
	for _, d := range c.counted {
		to <- d
	}
}

// Collect gathers and exports.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	g := c.admin.gather(context.Background())
	for i := range c.metrics {
		m, desc := &c.metrics[i], c.descs[i]
		m.read(&g, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(desc, m.kind, value, labels...)
		})
	}
	for i := range g.Counters {
		v := &g.Counters[i]
		kind := counter
		if v.Gauge {
			kind = gauge
		}
		var of []string
		if v.Label != "" {
			of = []string{v.Of}
		}
		to <- prometheus.MustNewConstMetric(c.counted[v.Name], kind, float64(v.Count), of...)
	}
	c.collectTimes(&g, to)
}

// collectTimes exports the histograms.
func (c *collector) collectTimes(g *gathered, to chan<- prometheus.Metric) {
	for i := range g.Times {
		d := &g.Times[i]
		buckets := make(map[float64]uint64, len(c.bounds))
		count := uint64(0)
		for k, bound := range c.bounds {
			count += uint64(d.Counts[k])
			buckets[bound] = count
		}
		count += uint64(d.Counts[len(c.bounds)])
		to <- prometheus.MustNewConstHistogram(c.counted[d.Name], count, d.Sum.Seconds(), buckets, d.Of)
	}
}

func (a *Admin) gather(ctx context.Context) gathered {
	g := gathered{version: a.options.Version}
	if a.options.LogDropped != nil {
		g.logDropped = a.options.LogDropped()
	}
	g.Status, g.running = a.status(ctx)
	return g
}
