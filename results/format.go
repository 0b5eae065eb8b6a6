package results

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Name identifies what a sample measured. It is comparable.
type Name struct {
	Scenario string
	Mode     string // "closed" or "open"
	Conns    int
	Rate     int // requests per second; 0 in a closed loop, which has no rate
	// Vary is the key that the scenario measures at several values, one of
	// Varied, and At its value here; both are "" where it varies nothing else
	// than the connections.
	Vary, At string
	TLS      bool // between the load and the subject
	Subject  string
}

// Varied are the keys that a scenario can vary.
var Varied = []string{"length", "cores", "headers"}

// String returns the benchmark name without its "Benchmark" prefix. The order
// of the keys is fixed, and subject comes last so that
// `benchstat -col '/subject@(nginx-best atlas)'` lines the subjects up.
func (n Name) String() string {
	rate := ""
	if n.Rate > 0 {
		rate = fmt.Sprintf("/rate=%d", n.Rate)
	}
	if n.Vary != "" {
		rate += fmt.Sprintf("/%s=%s", n.Vary, n.At)
	}
	tls := "off"
	if n.TLS {
		tls = "on"
	}
	return fmt.Sprintf("Lab/scenario=%s/mode=%s/conns=%d%s/tls=%s/subject=%s",
		n.Scenario, n.Mode, n.Conns, rate, tls, n.Subject)
}

// Of returns the same cell for another subject.
func (n Name) Of(subject string) Name {
	n.Subject = subject
	return n
}

var nameGrammar = regexp.MustCompile(
	`^Lab/scenario=([a-z][a-z0-9-]*)/mode=(closed|open)/conns=([1-9][0-9]*)(?:/rate=([1-9][0-9]*))?` +
		`(?:/(` + strings.Join(Varied, "|") + `)=([a-z0-9]+))?/tls=(on|off)/subject=([a-z][a-z0-9-]*)$`)

// A trailing "-4" would be read as GOMAXPROCS=4 and lost.
var trailingDigits = regexp.MustCompile(`-[0-9]+$`)

// ParseName reads what String wrote.
func ParseName(s string) (Name, error) {
	m := nameGrammar.FindStringSubmatch(s)
	if m == nil || trailingDigits.MatchString(m[1]) || trailingDigits.MatchString(m[8]) {
		const form = "Lab/scenario=S/mode=M/conns=N[/rate=R][/KEY=V]/tls=on|off/subject=S"
		return Name{}, fmt.Errorf("benchmark name %q is not %s", s, form)
	}
	n := Name{Scenario: m[1], Mode: m[2], Vary: m[5], At: m[6], TLS: m[7] == "on", Subject: m[8]}
	var err error
	if n.Conns, err = strconv.Atoi(m[3]); err != nil {
		return Name{}, fmt.Errorf("benchmark name %q: %w", s, err)
	}
	if m[4] != "" {
		if n.Rate, err = strconv.Atoi(m[4]); err != nil {
			return Name{}, fmt.Errorf("benchmark name %q: %w", s, err)
		}
	}
	if (n.Mode == "open") != (n.Rate > 0) {
		return Name{}, fmt.Errorf("benchmark name %q: mode=open and rate= come together", s)
	}
	return n, nil
}

// Unit is a column of the results.
type Unit struct {
	Name     string
	Better   int  // +1 higher, -1 lower, 0 where neither is better
	Exact    bool // repetition adds no confidence: compare without a test
	Decimals int  // kept when written
	About    string
}

// The units by name.
const (
	CPU        = "cpu-ns/req"
	Throughput = "req/s"
	Mean       = "mean-ns"
	P50        = "p50-ns"
	P99        = "p99-ns"
	RawMean    = "raw-mean-ns"
	RawP99     = "raw-p99-ns"
	ClientCPU  = "client-cpu-ns/req"
	OriginCPU  = "origin-cpu-ns/req"
	ServerBusy = "server-busy"
	ClientBusy = "client-busy"
	Errors     = "errors"

	KernelCPU          = "kernel-cpu-ns/req"
	Bytes              = "bytes/cpu-s"
	HandshakeCPU       = "cpu-ns/handshake"
	Handshakes         = "handshakes/s"
	ClientHandshakeCPU = "client-cpu-ns/handshake"
	Resident           = "resident-bytes/conn"
	ResidentBefore     = "resident-bytes-before"
	Syscalls           = "syscalls/req"
	Enters             = "enters/req"
	Shed               = "shed/s"
	ShedP50            = "shed-p50-ns"
	ShedP99            = "shed-p99-ns"
	PeakResident       = "peak-resident-bytes"
	AloneP99           = "alone-p99-ns"
	P99Rise            = "p99-rise"
	GreedyBytes        = "greedy-bytes/s"
	GreedyThroughput   = "greedy-req/s"
)

// Units are the columns in the order they are written.
var Units = []Unit{
	{CPU, -1, false, 0, "CPU time of the server process per completed request, user and system"},
	{KernelCPU, 0, false, 0, "part of cpu-ns/req that was spent in the kernel, counted in ticks of 10 ms"},
	{Bytes, +1, false, 0, "bytes of body per second of the server's CPU time, where answers have 100 KB and more"},
	{HandshakeCPU, -1, false, 0, "CPU time of the server process per TLS handshake, one request and the close with it"},
	{Resident, -1, false, 0, "growth of the server's resident memory per connection that was used and rests"},
	{Throughput, +1, false, 0, "completed requests per second of the measured phase"},
	{Shed, -1, false, 0, "answers with status 503 per second, where a load lets them stand; req/s is of the others"},
	{PeakResident, -1, false, 0, "most resident memory that the server's processes have had since their start, each"},
	{Handshakes, +1, false, 0, "TLS handshakes per second; missing where the generator was the limit"},
	{Mean, -1, false, 0, "mean latency; open loop: from when a request was due; closed loop: as the generator says"},
	{P50, -1, false, 0, "median latency, as mean-ns"},
	{P99, -1, false, 0, "99th percentile of the latency, as mean-ns"},
	{AloneP99, -1, false, 0, "p99-ns of the same load in the same sample before the greedy client came"},
	{P99Rise, -1, false, 3, "p99-ns beside the greedy client as a multiple of alone-p99-ns"},
	{GreedyBytes, +1, false, 0, "bytes of body per second of the greedy client, which has one connection"},
	{GreedyThroughput, +1, false, 0, "answers per second of the greedy client, which pipelines on one connection"},
	{ShedP50, -1, false, 0, "median latency of the answers of shed/s, from when their request was due"},
	{ShedP99, -1, false, 0, "99th percentile of it"},
	{RawMean, -1, false, 0, "open loop: mean latency from the instant the request was really sent"},
	{RawP99, -1, false, 0, "open loop: 99th percentile from the instant the request was really sent"},
	{ClientCPU, 0, false, 0, "CPU time of the load generator per completed request"},
	{ClientHandshakeCPU, 0, false, 0, "CPU time of the load generator per handshake"},
	{OriginCPU, 0, false, 0, "CPU time of the origin per completed request, where there is one"},
	{ResidentBefore, 0, false, 0, "resident memory of the server before the connections of resident-bytes/conn"},
	{Syscalls, -1, false, 4, "system calls of the server per completed request, of a pass of its own"},
	{Enters, -1, false, 4, "calls of io_uring_enter among syscalls/req"},
	{ServerBusy, 0, false, 3, "cores that the server kept busy"},
	{ClientBusy, 0, false, 3, "cores that the generator and the origin kept busy"},
	{Errors, -1, true, 0, "failed requests; always 0, because a sample with errors is not stored"},
}

// SaturatedMin is the least server-busy, in cores per worker, at which req/s
// of a closed loop is the server's own limit; below it the generator, the
// origin or a neighbour on the machine was the limit.
const SaturatedMin = 0.90

// Settings of a duet's files (base.bench, control.bench and candidate.bench in one
// directory): sample i of each is of the same slice of time, so many slices are
// of one start of the servers, so many starts are one stage.
const (
	Slices   = "slices"
	Restarts = "restarts"
)

// FormTogether is in the name of a form in which all subjects of a load run at once.
const FormTogether = ", together"

// RunKeys are the settings that differ between any two runs. benchstat needs
// them in -ignore: it puts files that differ in a setting in separate tables,
// without a comparison and without a warning.
var RunKeys = []string{"commit", "date", "run", "atlas-sha256", "other-sha256"}

// line returns the metadata line for benchstat, or "" where the unit has
// no direction.
func (u Unit) line() string {
	var b strings.Builder
	switch u.Better {
	case +1:
		fmt.Fprintf(&b, "Unit %s better=higher", u.Name)
	case -1:
		fmt.Fprintf(&b, "Unit %s better=lower", u.Name)
	default:
		return ""
	}
	if u.Exact {
		b.WriteString(" assume=exact")
	}
	return b.String()
}

// UnitNamed returns a unit of the table.
func UnitNamed(name string) (Unit, bool) {
	for _, u := range Units {
		if u.Name == name {
			return u, true
		}
	}
	return Unit{}, false
}
