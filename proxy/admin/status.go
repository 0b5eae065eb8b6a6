package admin

import (
	"encoding/json"
	"math"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"atlas/proxy/server"
	"atlas/proxy/stats"
)

// Report is what /status shows, as JSON. Its figures are those of /metrics.
type Report struct {
	Version string        `json:"version"`
	Go      string        `json:"go"`
	PID     int           `json:"pid"`
	State   string        `json:"state"` // "ready", or why it is not
	Started time.Time     `json:"started"`
	Uptime  float64       `json:"uptime_seconds"`
	Engine  EngineReport  `json:"engine"`
	Config  *ConfigReport `json:"config,omitempty"`

	Listeners []ListenerReport `json:"listeners"`
	Workers   []WorkerReport   `json:"workers"`
	Skew      float64          `json:"connection_skew"` // see the metric connections_skew_ratio

	// Counters are those of the metrics without further ones, by name; those that
	// have a label are below it.
	Counters map[string]int64            `json:"counters"`
	By       map[string]map[string]int64 `json:"counters_by"`

	Latency   []LatencyReport  `json:"latency"` // of what there was
	Upstreams []UpstreamReport `json:"upstreams"`
	Waiting   int              `json:"upstream_queue"`
	TriesLeft int              `json:"retry_budget_tries"`

	Certificates []CertificateReport `json:"certificates"`
	// CertificateErrors are what is wrong with files that are not in use for it.
	CertificateErrors []string      `json:"certificate_errors"`
	Upgrade           UpgradeReport `json:"upgrade"`
	Dropped           DroppedReport `json:"log_dropped"`
}

// EngineReport is how the workers do their I/O.
type EngineReport struct {
	Name             string  `json:"name"`
	Reason           string  `json:"reason"`
	EntersPerRequest float64 `json:"enters_per_request"`
	Silent           int     `json:"silent_workers"`
}

// ConfigReport is which configuration is in use, and what became of the last
// attempt to change it.
type ConfigReport struct {
	File    string     `json:"file"`
	Sum     string     `json:"sha256"` // of its text
	Since   time.Time  `json:"active_since"`
	Tried   *time.Time `json:"last_reload,omitempty"` // none yet
	Why     string     `json:"last_reload_asked_by,omitempty"`
	Errors  []string   `json:"last_reload_errors"` // empty: it was applied
	Applied uint64     `json:"reloads_applied"`
	Failed  uint64     `json:"reloads_failed"`
}

func configReport(r *server.ReloadStatus) *ConfigReport {
	c := &ConfigReport{
		File: r.File, Sum: r.Sum, Since: r.Active, Why: r.Why,
		Errors: append([]string{}, r.Errors...), Applied: r.Applied, Failed: r.Failed,
	}
	if !r.Last.IsZero() {
		c.Tried = &r.Last
	}
	return c
}

// ListenerReport is an address that is listened on.
type ListenerReport struct {
	Address string `json:"address"`
	Mode    string `json:"mode"`
	TLS     bool   `json:"tls"`
}

// WorkerReport is what one worker counts.
type WorkerReport struct {
	Worker   int    `json:"worker"`
	Requests int64  `json:"requests"`
	Accepted uint64 `json:"accepted"`
	Handed   uint64 `json:"handed_over"`
	Open     int64  `json:"open"`
	Upstream int64  `json:"upstream_open"`
	Refused  uint64 `json:"accepts_failed"`
	Tasks    int64  `json:"tasks"`
	Panics   uint64 `json:"panics"`
	Enters   uint64 `json:"ring_enters"`
	Starved  uint64 `json:"ring_starved"`
	Overflow uint64 `json:"ring_overflows"`
	Pipes    int64  `json:"pipes"`
	Spliced  uint64 `json:"spliced_bytes"`
}

// LatencyReport is how long something took since the start, in seconds: so many
// of 100 were no slower. It is read off a histogram, so it lies between two of its
// bounds.
type LatencyReport struct {
	Of    string  `json:"of"`
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
}

// UpstreamReport is one address of an upstream; of a name that has none it is
// empty.
type UpstreamReport struct {
	Name          string       `json:"name"`
	Address       string       `json:"address"`
	State         string       `json:"state"`
	EjectedFor    float64      `json:"ejected_for_seconds"`
	Weight        int          `json:"weight"`
	Requests      int64        `json:"requests"`
	InFlight      int          `json:"in_flight"`
	Idle          int          `json:"idle"`
	Failures      int64        `json:"failures"`
	FailuresInRow int          `json:"failures_in_a_row"`
	Ejections     int64        `json:"ejections"`
	Check         *CheckReport `json:"check,omitempty"` // of those that are checked
}

// CheckReport is what health checks found.
type CheckReport struct {
	At     time.Time `json:"at"`
	Error  string    `json:"error"` // of the last one; empty: it passed
	Passed int64     `json:"passed"`
	Failed int64     `json:"failed"`
}

// CertificateReport is a certificate of the listener.
type CertificateReport struct {
	File      string    `json:"file"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
}

// UpgradeReport is what became of upgrades.
type UpgradeReport struct {
	From    int        `json:"took_over_from,omitempty"` // process; nobody's
	Tried   *time.Time `json:"last_failure,omitempty"`   // none yet
	Error   string     `json:"last_failure_error,omitempty"`
	Ended   string     `json:"last_failure_ended,omitempty"`   // of the new process, if it was started here
	Printed string     `json:"last_failure_printed,omitempty"` // by it
	Failed  uint64     `json:"failed"`
}

func upgradeReport(u *server.UpgradeStatus) UpgradeReport {
	r := UpgradeReport{From: u.From, Error: u.Error, Ended: u.Ended, Printed: u.Printed, Failed: u.Failed}
	if !u.Last.IsZero() {
		r.Tried = &u.Last
	}
	return r
}

// DroppedReport is what was not written to the log.
type DroppedReport struct {
	Failures int64 `json:"failures"`
	Lines    int64 `json:"lines"`
}

func (a *Admin) showStatus(w http.ResponseWriter, r *http.Request) {
	g := a.gather(r.Context())
	text, err := json.MarshalIndent(a.report(&g, time.Now()), "", "  ")
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // a client that is gone needs no answer
}

// report puts what was gathered into words.
func (a *Admin) report(g *gathered, now time.Time) *Report {
	r := &Report{
		Version: g.version, Go: runtime.Version(), PID: os.Getpid(), State: g.Reason, Started: g.Started,
		Engine: EngineReport{
			Name: string(g.Engine), Reason: g.EngineReason,
			EntersPerRequest: round(entersPerRequest(g.Workers)), Silent: g.Upstreams.Silent,
		},
		Listeners: []ListenerReport{}, Latency: []LatencyReport{}, Upstreams: []UpstreamReport{},
		Certificates: []CertificateReport{}, Workers: []WorkerReport{}, Skew: round(skew(g.Workers)),
		Counters: make(map[string]int64), By: make(map[string]map[string]int64),
		CertificateErrors: append([]string{}, g.CertificateErrors...), Upgrade: upgradeReport(&g.Upgrades),
		Waiting: g.Upstreams.Waiting, TriesLeft: g.Upstreams.TriesLeft,
		Dropped: DroppedReport{Failures: g.Unlogged, Lines: g.logDropped},
	}
	if g.running {
		r.Uptime = round(now.Sub(g.Started).Seconds())
	}
	if g.Ready {
		r.State = "ready"
	}
	if s := a.attached(); s != nil {
		r.Config = configReport(&g.Reloads)
	}
	for _, l := range g.Listeners {
		r.Listeners = append(r.Listeners, ListenerReport(l))
	}
	for i := range g.Counters {
		v := &g.Counters[i]
		if v.Label == "" {
			r.Counters[v.Name] = v.Count
			continue
		}
		if r.By[v.Name] == nil {
			r.By[v.Name] = make(map[string]int64)
		}
		r.By[v.Name][v.Of] = v.Count
	}
	for i := range g.Times {
		if d := &g.Times[i]; d.Count() > 0 {
			r.Latency = append(r.Latency, latency(d))
		}
	}
	r.addWorkers(g)
	r.addUpstreams(g)
	for _, c := range g.Certificates {
		r.Certificates = append(r.Certificates, CertificateReport{
			File: c.File, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			DaysLeft: int(math.Floor(c.NotAfter.Sub(now).Hours() / 24)),
		})
	}
	return r
}

func (r *Report) addWorkers(g *gathered) {
	for i := range g.Workers {
		w, c := &g.Workers[i], g.Workers[i].Loop
		r.Workers = append(r.Workers, WorkerReport{
			Worker: i, Requests: w.Requests,
			Accepted: c.Accepted.Load(), Handed: c.Handed.Load(), Open: c.Open.Load(),
			Upstream: c.Dialled.Load(), Refused: c.Refused.Load(),
			Tasks: c.Tasks.Load(), Panics: c.Panics.Load(),
			Enters: c.Enters.Load(), Starved: c.Starved.Load(), Overflow: c.Overflow.Load(),
			Pipes: c.Pipes.Load(), Spliced: c.Spliced.Load(),
		})
	}
}

func (r *Report) addUpstreams(g *gathered) {
	for i := range g.Upstreams.Endpoints {
		e := &g.Upstreams.Endpoints[i]
		u := UpstreamReport{
			Name: e.Upstream, Address: e.Address, State: string(e.State), EjectedFor: round(e.EjectedFor.Seconds()),
			Weight: e.Weight, Requests: e.Requests, InFlight: e.InFlight, Idle: e.Idle,
			Failures: e.Failures, FailuresInRow: e.FailuresInRow, Ejections: e.Ejections,
		}
		if !e.Checks.At.IsZero() {
			u.Check = &CheckReport{
				At: e.Checks.At, Error: e.Checks.Error, Passed: e.Checks.Passed, Failed: e.Checks.Failed,
			}
		}
		r.Upstreams = append(r.Upstreams, u)
	}
	for _, name := range g.Upstreams.Unknown {
		r.Upstreams = append(r.Upstreams, UpstreamReport{Name: name, State: noAddress})
	}
}

// noAddress is the state of an upstream whose name has no address, in /status
// only: there is no endpoint that could be in it.
const noAddress = "no address"

// round keeps three digits behind the point.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// latency reads quantiles off a histogram.
func latency(d *stats.Distribution) LatencyReport {
	of := d.Of
	if d.Label == "upstream" {
		of = d.Of + " " + strings.TrimSuffix(strings.TrimPrefix(d.Name, "upstream_"), "_seconds")
	}
	return LatencyReport{
		Of: strings.ReplaceAll(of, "_", " "), Count: d.Count(),
		P50: quantile(d, 0.5), P90: quantile(d, 0.9), P99: quantile(d, 0.99), P999: quantile(d, 0.999),
	}
}

// quantile takes what is in a bucket to be spread over it evenly, as Prometheus
// does; beyond the last bound it is that bound.
func quantile(d *stats.Distribution, q float64) float64 {
	bounds := stats.Bounds()
	rank, below, lower := q*float64(d.Count()), 0.0, 0.0
	for i, bound := range bounds {
		n := float64(d.Counts[i])
		if n > 0 && below+n >= rank {
			return lower + (bound.Seconds()-lower)*(rank-below)/n
		}
		below, lower = below+n, bound.Seconds()
	}
	return lower
}
