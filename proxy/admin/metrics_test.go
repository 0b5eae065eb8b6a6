package admin

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/server"
)

var update = flag.Bool("update", false, "rewrite docs/metrics.md")

// scraped are the values of a scrape by name and labels: `name{a="b"}`.
type scraped map[string]float64

// scrape reads /metrics the way Prometheus does.
func (r *rig) scrape() scraped {
	r.Helper()
	got := r.get("/metrics")
	require.Equal(r, 200, got.Status, got.Text)
	assert.Contains(r, got.Header.Get("Content-Type"), "version=0.0.4")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(got.Text))
	require.NoError(r, err)
	values := make(scraped)
	for name, family := range families {
		for _, m := range family.Metric {
			values[name+labelText(m)] = valueOf(m)
		}
	}
	return values
}

func labelText(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.Label {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if pairs == nil {
		return ""
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return m.Untyped.GetValue()
}

// sum adds up what begins like that.
func (s scraped) sum(start string) (n float64) {
	for key, value := range s {
		if strings.HasPrefix(key, start) {
			n += value
		}
	}
	return n
}

// The counters are those of the traffic that there was.
func TestMetricsAgreeWithTraffic(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := launch(t, looptest.StaticConfig(t, engine))
		before := r.scrape()
		assert.Zero(t, before["atlas_requests_total"])
		assert.EqualValues(t, 1, before["atlas_ready"])
		assert.EqualValues(t, 2, before["atlas_workers"])
		assert.EqualValues(t, 1, before["atlas_connections_skew_ratio"])
		assert.EqualValues(t, 1, before.sum(fmt.Sprintf("atlas_engine_info{engine=%q,", engine)))
		assert.EqualValues(t, 1, before.sum("atlas_build_info{"))

		r.visit("/a", "/a", "/a", "/none")
		after := r.scrape()
		assert.EqualValues(t, 4, after["atlas_requests_total"])
		assert.EqualValues(t, 4, after.sum("atlas_worker_requests_total{"))
		assert.EqualValues(t, 3, after[`atlas_responses_total{class="2xx"}`])
		assert.EqualValues(t, 1, after[`atlas_responses_total{class="4xx"}`])
		assert.EqualValues(t, 1, after.sum("atlas_connections_accepted_total{"))
		assert.EqualValues(t, 4, after["atlas_static_cache_hits_total"]+after["atlas_static_cache_misses_total"])
		assert.Positive(t, after["atlas_static_cache_bytes"])
		assert.Positive(t, after["go_goroutines"])
		assert.Positive(t, after["process_start_time_seconds"])
		r.eventually("the client to be gone", func() bool { return r.scrape().sum("atlas_connections_open{") == 0 })
	})
}

// Connections that stay are shared out, and the figures say so, also where they are
// not.
func TestMetricsOfWorkers(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := launch(t, looptest.StaticConfig(t, engine))
		for range 6 {
			transport := new(http.Transport)
			t.Cleanup(transport.CloseIdleConnections)
			response, err := (&http.Client{Transport: transport}).Get("http://" + r.server.Addr() + "/a")
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
		}
		got, said := r.scrape(), r.status()
		assert.EqualValues(t, 1, got["atlas_connections_skew_ratio"])
		assert.EqualValues(t, 1, said.Skew)
		var handed uint64
		for i, w := range said.Workers {
			label := fmt.Sprintf(`{worker="%d"}`, i)
			assert.EqualValues(t, 3, got["atlas_connections_open"+label])
			assert.EqualValues(t, 3, got["atlas_connections_accepted_total"+label])
			assert.EqualValues(t, 3, got["atlas_worker_requests_total"+label])
			assert.EqualValues(t, 3, w.Open)
			handed += w.Handed
		}
		assert.EqualValues(t, handed, got.sum("atlas_connections_handed_over_total{"))
	})
	busy := make([]server.WorkerStatus, 4)
	for i := range busy {
		busy[i].Loop = new(loop.Counters)
		busy[i].Loop.Open.Store(int64(i * 10))
	}
	assert.EqualValues(t, 2, skew(busy), "30 of 60 on one of four")
	assert.EqualValues(t, 1, skew(nil))
}

func TestMetricsOfUpstreams(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		hold, asked := make(chan struct{}), make(chan struct{}, 1)
		well := origin(t, func(w http.ResponseWriter, request *http.Request) {
			if request.URL.Path == "/slow" {
				asked <- struct{}{}
				<-hold
			}
			fmt.Fprint(w, "well")
		})
		r := launch(t, looptest.ProxyConfig(engine, []string{well, "127.0.0.1:1"}))
		label := fmt.Sprintf(`{address=%q,upstream="up0"}`, well)
		r.visit("/", "/", "/", "/", "/", "/", "/", "/")
		got := r.scrape()
		assert.EqualValues(t, 8, got["atlas_requests_total"])
		assert.EqualValues(t, 8, got[`atlas_responses_total{class="2xx"}`])
		assert.EqualValues(t, 8, got["atlas_upstream_requests_total"+label])
		assert.EqualValues(t, 1, got["atlas_upstream_connections_idle"+label])
		assert.Zero(t, got["atlas_upstream_requests_in_flight"+label])
		tried := got[`atlas_upstream_requests_total{address="127.0.0.1:1",upstream="up1"}`]
		assert.Positive(t, tried)
		assert.Equal(t, tried, got[`atlas_upstream_failures_total{address="127.0.0.1:1",upstream="up1"}`])
		assert.Equal(t, tried, got[`atlas_upstream_errors_total{reason="refused"}`])
		assert.Equal(t, tried, got["atlas_retries_total"])
		assert.EqualValues(t, 1, got[`atlas_upstream_ejections_total{address="127.0.0.1:1",upstream="up1"}`])
		assert.EqualValues(t, 1, got[`atlas_upstream_state{address="127.0.0.1:1",state="ejected",upstream="up1"}`])
		assert.Zero(t, got[`atlas_upstream_state{address="127.0.0.1:1",state="up",upstream="up1"}`])
		assert.Positive(t, got["atlas_retry_budget_tries"])

		var client sync.WaitGroup
		client.Go(func() { r.visit("/slow") })
		<-asked
		assert.EqualValues(t, 1, r.scrape()["atlas_upstream_requests_in_flight"+label])
		close(hold)
		client.Wait()
		r.eventually("nothing to be in flight", func() bool {
			return r.scrape()["atlas_upstream_requests_in_flight"+label] == 0
		})
	})
}

// Scrapes while there is load are answered, and so is the load.
func TestScrapeUnderLoad(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") })
		r := launch(t, looptest.ProxyConfig(engine, []string{up}))
		var clients sync.WaitGroup
		const asks = 400
		for range 8 {
			clients.Go(func() { r.visit(slices.Repeat([]string{"/"}, asks)...) })
		}
		done := make(chan struct{})
		go func() { defer close(done); clients.Wait() }()
		scrapes, last := 0, 0.0
		for loaded := true; loaded; scrapes++ {
			select {
			case <-done:
				loaded = false
			default:
			}
			now := r.scrape().sum("atlas_upstream_requests_total{")
			assert.GreaterOrEqual(t, now, last, "a counter goes up")
			last = now
			assert.Equal(t, 200, r.get("/healthz").Status)
			assert.Zero(t, r.status().Engine.Silent)
		}
		assert.Greater(t, scrapes, 1)
		got := r.scrape()
		assert.EqualValues(t, 8*asks, got["atlas_requests_total"])
		assert.EqualValues(t, 8*asks, got[`atlas_responses_total{class="2xx"}`])
		assert.EqualValues(t, 8*asks, got.sum("atlas_upstream_requests_total{"))
	})
}

// Prometheus's own linter has nothing to say, also where there is no server yet.
func TestMetricsLint(t *testing.T) {
	up := origin(t, func(http.ResponseWriter, *http.Request) {})
	r := launch(t, looptest.ProxyConfig(loop.Netpoll, []string{up}))
	r.visit("/")
	for _, a := range []*Admin{r.Admin, {options: Options{Version: "x"}}} {
		registry := prometheus.NewPedanticRegistry()
		require.NoError(t, registry.Register(newCollector(a)))
		problems, err := testutil.GatherAndLint(registry)
		require.NoError(t, err)
		assert.Empty(t, problems)
	}
}

const docs = "../../docs/metrics.md"

// docs/metrics.md has every metric that there is.
func TestMetricsDocs(t *testing.T) {
	text := document()
	if *update {
		require.NoError(t, os.WriteFile(docs, []byte(text), 0o644))
	}
	want, err := os.ReadFile(docs)
	require.NoError(t, err)
	assert.Equal(t, string(want), text, "make it with: go test ./proxy/admin -run Docs -update")
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	r.visit("/a")
	families, err := r.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		name := f.GetName()
		if strings.HasPrefix(name, prefix) {
			assert.Contains(t, text, "`"+name+"`")
		} else {
			assert.Regexp(t, "^(go|process|promhttp)_", name, "it has no section")
		}
	}
}

// document is the page, made of what the collector is made of.
func document() string {
	var b strings.Builder
	b.WriteString(docsHead)
	section := func(title string, rows []metric) {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", title)
		for i := range rows {
			m := &rows[i]
			kind := "counter"
			if m.kind == gauge {
				kind = "gauge"
			}
			row(&b, m.name, kind, m.labels, m.help)
		}
	}
	section("The process", processMetrics())
	section("Workers", workerMetrics())
	section("Upstreams", upstreamMetrics())
	b.WriteString("\n## Requests, responses and errors\n\nOf all workers together.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	counters, times := counted()
	for _, v := range counters {
		kind := "counter"
		if v.Gauge {
			kind = "gauge"
		}
		row(&b, v.Name, kind, labelsOf(v.Label), v.Help)
	}
	b.WriteString("\n## Times\n\nOf all workers together, in seconds.\n\n" +
		"| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range times {
		row(&b, d.Name, "histogram", labelsOf(d.Label), d.Help)
	}
	b.WriteString(docsTail)
	return b.String()
}

func row(b *strings.Builder, name, kind string, labels []string, help string) {
	fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, name, kind, strings.Join(labels, ", "), help)
}

const docsHead = `# Metrics

Atlas exports these for Prometheus at ` + "`/metrics`" + ` of the admin listener, which there is when the
configuration has an ` + "`address` in `[admin]`" + `. This page is made by a test from the table that the metrics
themselves are made from, so it has all of them.

A scrape reads what the workers count anyway, and asks each worker once for what only it knows (its
connections to upstreams); what a worker that does not answer within a second said before counts.
`

const docsTail = `
## Go and the process

` + "`go_*` and `process_*`" + ` are those that Prometheus's library for Go exports everywhere: memory, garbage
collection, goroutines, threads, processor time, descriptors.

## Some questions

| question | expression |
|---|---|
| requests a second | ` + "`rate(atlas_requests_total[1m])`" + ` |
| share of responses that are errors of ours or of upstreams | ` +
	"`sum(rate(atlas_responses_total{class=\"5xx\"}[5m])) / sum(rate(atlas_responses_total[5m]))`" + ` |
| why requests failed | ` + "`sum by (reason) (rate(atlas_upstream_errors_total[5m])) > 0`" + ` |
| an upstream that gets nothing | ` + "`atlas_upstream_state{state=\"up\"} == 0`" + ` |
| 99 of 100 requests were faster | ` +
	"`histogram_quantile(0.99, sum by (le) (rate(atlas_phase_seconds_bucket{phase=\"total\"}[5m])))`" + ` |
| system calls a request, now | ` +
	"`sum(rate(atlas_ring_enters_total[1m])) / sum(rate(atlas_requests_total[1m]))`" + ` |
| days until a certificate ends | ` +
	"`(atlas_certificate_not_after_timestamp_seconds - time()) / 86400`" + ` |
`
