package report

import (
	"fmt"
	"slices"
	"strings"

	"atlas/compare/gate"
	"atlas/results"
)

// How a published figure fares here.
const (
	reproduced    = "reproduced"
	exceeded      = "exceeded"
	notReproduced = "not reproduced"
	notMeasurable = "not measurable here"
	inconsistent  = "inconsistent"
)

// band is how far from a published ratio the same is: the README rounds its
// figures, and says nothing of their spread.
const band = 0.10

// widthMax is how many times its low end the high end of an interval may be:
// one that is wider agrees with almost anything.
const widthMax = 1.5

// claim is one published figure with ours.
type claim struct {
	what      string
	published string
	ours      string
	interval  string
	alone     string // the same ratio of the server's CPU time alone
	outcome   string
	why       string
}

// claims adds every published figure with what became of it here.
func (t *tables) claims(p *results.Published) {
	var all []claim
	for _, table := range p.Throughput {
		for _, row := range table.Rows {
			all = append(all, t.throughputClaim(table, row))
		}
	}
	all = append(all, t.tlsClaim(p.TLS), t.absolutes(p))
	for _, row := range p.Latency {
		all = append(all, t.latencyClaims(row)...)
	}
	if !slices.ContainsFunc(all, func(c claim) bool { return strings.Trim(c.ours, unmeasured) != "" }) {
		return // nothing of it is in this run
	}
	rows := [][]string{{"Published", "README's", "Ours", "95% interval", "Server alone", "Outcome", "Why"}}
	for _, c := range all {
		rows = append(rows, []string{
			c.what, c.published, orDash(c.ours), orDash(c.interval), orDash(c.alone), c.outcome, c.why,
		})
	}
	t.add(block{title: publishedTitle, text: publishedText, rows: rows})
}

const (
	publishedTitle = "What became of the published figures"
	publishedText  = "The README's servers shared their cores with the load, where requests per second are the\n" +
		"cores divided by all CPU time of a request: server, load and origin. That is compared where its own\n" +
		"set-up was not run. Reproduced: the interval of ours reaches within 10% of the published ratio.\n"
)

// throughputClaim is Atlas to nginx in one row of a table.
func (t *tables) throughputClaim(table results.PublishedThroughput, row results.PublishedRow) claim {
	c := claim{
		what:      fmt.Sprintf("%s, %d connections, Atlas to nginx", table.Title, row.Conns),
		published: ratio(row.Atlas / row.Nginx),
	}
	own := results.Name{Scenario: table.Own, Mode: "closed", Conns: row.Conns, Subject: readmeAtlas}
	if ratios := t.rates(own, own.Of(readmeNginx)); ratios != nil {
		c.judge(row.Atlas/row.Nginx, ratios)
		c.because("the README's own set-up")
		return c
	}
	atlas := own
	atlas.Scenario = table.Scenario
	t.byCost(&c, row.Atlas/row.Nginx, atlas.Of(readmeNginx), atlas)
	return c
}

// tlsClaim is Atlas with TLS to Atlas without.
func (t *tables) tlsClaim(p results.PublishedTLS) claim {
	c := claim{
		what:      fmt.Sprintf("%s, TLS to plain", p.Title),
		published: ratio(p.TLS / p.Plain),
	}
	own := results.Name{Scenario: p.Own, Mode: "closed", Conns: p.Conns, TLS: true, Subject: readmeAtlas}
	plain := own
	plain.Scenario, plain.TLS = p.OwnPlain, false
	if ratios := t.rates(own, plain); ratios != nil {
		c.judge(p.TLS/p.Plain, ratios)
		c.because("the README's own set-up")
		return c
	}
	own.Scenario, plain.Scenario = p.Scenario, p.PlainBy
	t.byCost(&c, p.TLS/p.Plain, plain, own)
	return c
}

// rates are the ratios of requests per second, nil where one is missing.
func (t *tables) rates(of, to results.Name) []float64 {
	return gate.Ratios(t.f.Values(of, results.Throughput), t.f.Values(to, results.Throughput))
}

// all is the CPU time of everybody for a request, round by round.
func (t *tables) all(name results.Name) []float64 {
	sum := slices.Clone(t.f.Values(name, results.CPU))
	for _, unit := range []string{results.ClientCPU, results.OriginCPU} {
		for i, v := range t.f.Values(name, unit) {
			if i < len(sum) {
				sum[i] += v
			}
		}
	}
	return sum
}

// byCost judges a ratio of rates by what a request costs everybody: dear is
// what the published ratio has below the line.
func (t *tables) byCost(c *claim, published float64, dear, cheap results.Name) {
	ratios := gate.Ratios(t.all(dear), t.all(cheap))
	if len(ratios) == 0 {
		c.outcome, c.why = notMeasurable, "not in this run"
		return
	}
	c.judge(published, ratios)
	alone := gate.Median(gate.Ratios(t.f.Values(dear, results.CPU), t.f.Values(cheap, results.CPU)))
	c.alone = ratio(alone)
	rest := gate.Median(t.all(cheap)) - t.median(cheap, results.CPU)
	c.because(fmt.Sprintf("load and origin take %.0f%% of the CPU time here", 100*rest/gate.Median(t.all(cheap))))
	if bound := gate.Median(t.all(dear)) / rest; c.outcome == notReproduced && bound < published {
		c.because(fmt.Sprintf("beside them a server at no cost would reach %s", ratio(bound)))
	}
}

// judge compares the ratios of the rounds with the published one.
func (c *claim) judge(published float64, ratios []float64) {
	c.ours = ratio(gate.Median(ratios))
	low, high, ok := gate.Interval(ratios)
	if !ok {
		c.outcome, c.why = notMeasurable, fmt.Sprintf("%d rounds have no interval", len(ratios))
		return
	}
	c.interval = fmt.Sprintf("%.2f to %.2f", low, high)
	switch {
	case low > published*(1+band):
		c.outcome = exceeded
	case high < published*(1-band):
		c.outcome = notReproduced
	case high > low*widthMax:
		c.outcome = notMeasurable
		c.because("the interval is too wide to tell")
	default:
		c.outcome = reproduced
	}
}

func (c *claim) because(why string) {
	c.why = strings.TrimPrefix(c.why+"; "+why, "; ")
}

// coresPublished are those of the README's machine.
const coresPublished = "4"

// absolutes are the requests per second themselves.
func (t *tables) absolutes(p *results.Published) claim {
	first := p.Throughput[0].Rows[0]
	c := claim{
		what: "requests per second, of all tables", outcome: notMeasurable,
		published: "up to " + perSecond(first.Atlas),
	}
	name := results.Name{Scenario: p.Throughput[0].Own, Mode: "closed", Conns: first.Conns, Subject: readmeAtlas}
	if v := t.median(name, results.Throughput); v > 0 {
		c.ours = perSecond(v)
		c.because("another machine")
		return c
	}
	c.because(fmt.Sprintf("%s cores and one worker, where the README has %s of each",
		orDash(t.f.Setting("cores")), coresPublished))
	return c
}

// latencyClaims are the mean and the 99th percentile of a row. By Little's law
// a rate times a latency is what was in flight, which cannot be more than there
// were connections.
func (t *tables) latencyClaims(p results.PublishedLatency) []claim {
	why := "the README does not say under which load; ours is at a fixed rate"
	outcome := notMeasurable
	if inFlight := p.Rate * p.MeanMs / 1e3; inFlight > float64(p.Conns) {
		outcome = inconsistent
		why = fmt.Sprintf("%s of %.2f ms each are %.0f in flight, on %d connections; ours is at a fixed rate",
			perSecond(p.Rate), p.MeanMs, inFlight, p.Conns)
	}
	both := []claim{
		{what: p.Label + ", mean latency", published: millis(p.MeanMs * 1e6), outcome: outcome, why: why},
		{what: p.Label + ", p99 latency", published: millis(p.P99Ms * 1e6), outcome: outcome, why: "as its mean"},
	}
	if cells := t.cells(p.Scenario); len(cells) > 0 {
		atlas := cells[0].Of(readmeAtlas)
		both[0].ours, both[1].ours = millis(t.median(atlas, results.Mean)), millis(t.median(atlas, results.P99))
		for i := range both {
			both[i].ours = strings.TrimPrefix(both[i].ours, unmeasured)
		}
	}
	return both
}
