package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"atlas/results"
)

// Positions on the axis of quantiles: each step to the right is a tenth of the
// requests that are slower than all to its left.
var quantileTicks = plot.ConstantTicks{
	{Value: 0, Label: "0"}, {Value: 0.30103, Label: "50"}, {Value: 1, Label: "90"}, {Value: 2, Label: "99"},
	{Value: 3, Label: "99.9"}, {Value: 4, Label: "99.99"}, {Value: 5, Label: "99.999"},
}

// quantileSteps are points of a curve for each tick of ten.
const quantileSteps = 25

// distribution is the latencies of one subject under one load.
type distribution struct {
	subjectMark
	corrected, raw *hdrhistogram.Histogram // nil where there is none
}

// quantiles draws latency by the share of requests that were faster: whole
// lines from when a request was due, broken ones from when it was sent.
func quantiles(title string, all []distribution) (chart, error) {
	p := newPlot("percent of requests", "latency, ms")
	p.Add(grid(true, true))
	p.Y.Scale, p.Y.Tick.Marker, p.X.Tick.Marker = plot.LogScale{}, tenfold{}, quantileTicks
	c := chart{Title: title}
	var words []string
	for _, d := range all {
		for _, one := range []struct {
			counts *hdrhistogram.Histogram
			broken bool
		}{{d.raw, d.corrected != nil}, {d.corrected, false}} {
			if one.counts == nil || one.counts.TotalCount() == 0 {
				continue
			}
			line, err := plotter.NewLine(quantileCurve(one.counts))
			if err != nil {
				return chart{}, err
			}
			line.Color, line.Width = solid(d.Colour), 1.6
			if one.broken {
				line.Width, line.Dashes = 1, []vg.Length{3, 2}
			}
			p.Add(line)
		}
		c.Legend = append(c.Legend, d.subjectMark)
		words = append(words, d.words())
	}
	if p.Y.Min <= 0 || p.Y.Min >= p.Y.Max {
		p.Y.Min, p.Y.Max = math.Max(p.Y.Min/2, 1e-3), p.Y.Max*2
	}
	p.X.Min, p.X.Max = 0, p.X.Max+0.3 // with room for the last letters
	c.About = title + ": " + strings.Join(words, "; ")
	var err error
	c.SVG, err = svg(p, chartHeight, c.About)
	return c, err
}

// words say the 99th percentiles.
func (d distribution) words() string {
	parts := []string{d.Name}
	if d.corrected != nil {
		parts = append(parts, "p99 "+millis(float64(d.corrected.ValueAtQuantile(99))))
	}
	if d.raw != nil {
		parts = append(parts, "p99 as sent "+millis(float64(d.raw.ValueAtQuantile(99))))
	}
	return strings.Join(parts, " ")
}

// quantileCurve is latency in milliseconds by position, as far as there are requests.
func quantileCurve(counts *hdrhistogram.Histogram) plotter.XYs {
	last := math.Log10(float64(counts.TotalCount()))
	var points plotter.XYs
	for i := 0; ; i++ {
		at := min(float64(i)/quantileSteps, last)
		v := float64(counts.ValueAtQuantile(100 * (1 - math.Pow(10, -at))))
		points = append(points, plotter.XY{X: at, Y: math.Max(v, 1000) / 1e6})
		if at == last {
			return points
		}
	}
}

// curve is a figure of each subject over the points of a scenario.
type curve struct {
	title, axis string
	scale       float64
	points      []results.Name
	series      map[results.Name][]series
	linear      bool // begins at nothing, whatever the range
}

// x is where a point is: connections by their number, on a logarithmic axis, and
// what else varies evenly spaced, as it may begin at nothing.
func (c curve) x(i int) float64 {
	if c.points[i].Vary == "" {
		return float64(c.points[i].Conns)
	}
	return float64(i)
}

// tick is what a point is called on its axis.
func (c curve) tick(i int) string {
	switch point := c.points[i]; {
	case point.Vary == "length":
		return atText(point)
	case point.Vary != "":
		return point.At
	case point.Conns >= 1000 && point.Conns%1000 == 0:
		return fmt.Sprintf("%dk", point.Conns/1000)
	default:
		return fmt.Sprint(point.Conns)
	}
}

// over is the title of the axis of points.
func (c curve) over() string {
	if vary := c.points[0].Vary; vary != "" {
		return varied[vary].title
	}
	return "connections"
}

// draw has each measurement as a dot, and a line through the medians.
func (c curve) draw() (chart, error) {
	p := newPlot(c.over(), c.axis)
	p.Add(grid(false, true))
	drawn := chart{Title: c.title + " over " + c.over()}
	var ticks plot.ConstantTicks
	lines := map[subjectMark]plotter.XYs{}
	least := math.Inf(1)
	for i, point := range c.points {
		ticks = append(ticks, plot.Tick{Value: c.x(i), Label: c.tick(i)})
		for _, s := range c.series[point] {
			if !slices.Contains(drawn.Legend, s.subjectMark) {
				drawn.Legend = append(drawn.Legend, s.subjectMark)
			}
			lines[s.subjectMark] = append(lines[s.subjectMark], plotter.XY{X: c.x(i), Y: s.median * c.scale})
			dots := make(plotter.XYs, len(s.values))
			for round, v := range s.values {
				dots[round] = plotter.XY{X: c.x(i), Y: v * c.scale}
				least = min(least, v*c.scale)
			}
			scatter, err := dotsOf(dots, s.Colour)
			if err != nil {
				return chart{}, err
			}
			scatter.Radius = dotRadius / 2
			p.Add(scatter)
		}
	}
	var words []string
	for _, mark := range drawn.Legend {
		line, err := plotter.NewLine(lines[mark])
		if err != nil {
			return chart{}, err
		}
		line.Color, line.Width = solid(mark.Colour), 1.6
		p.Add(line)
		first, last := lines[mark][0], lines[mark][len(lines[mark])-1]
		words = append(words, fmt.Sprintf("%s from %.4g to %.4g", mark.Name, first.Y, last.Y))
	}
	c.axes(p, ticks, least)
	drawn.About = drawn.Title + ": medians " + strings.Join(words, ", ")
	var err error
	drawn.SVG, err = svg(p, chartHeight, drawn.About)
	return drawn, err
}

// axes sets the scales. Over lengths a cost grows by more than a chart is high.
func (c curve) axes(p *plot.Plot, ticks plot.ConstantTicks, least float64) {
	last := len(c.points) - 1
	p.X.Tick.Marker = ticks
	if c.points[0].Vary == "" {
		p.X.Scale = plot.LogScale{}
		p.X.Min, p.X.Max = c.x(0)*0.9, c.x(last)*1.1
	} else {
		p.X.Min, p.X.Max = -0.3, float64(last)+0.3
	}
	if c.points[0].Vary == "length" && !c.linear && least > 0 {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, tenfold{}
		p.Y.Min, p.Y.Max = least/1.2, p.Y.Max*1.2
		return
	}
	p.Y.Min, p.Y.Max, p.Y.Tick.Marker = 0, p.Y.Max*1.05, plain{}
}

// multiple is what a subject's cost is of another's, under one load.
type multiple struct {
	subjectMark
	load      string
	median    float64
	low, high float64 // of its interval; equal where there are too few rounds
}

// multiples draws a row for each load and a dot for each subject, with the
// interval of the median as a line. What is left of 1 costs less.
func multiples(title, reference string, loads []string, all []multiple) (chart, error) {
	p := newPlot("times "+reference, "")
	p.Add(grid(true, false))
	c := chart{Title: title}
	least, most := 0.5, 2.0
	for _, m := range all {
		row := float64(len(loads) - 1 - slices.Index(loads, m.load))
		line, err := plotter.NewLine(plotter.XYs{{X: m.low, Y: row}, {X: m.high, Y: row}})
		if err != nil {
			return chart{}, err
		}
		line.Color, line.Width = solid(m.Colour), 1
		dot, err := dotsOf(plotter.XYs{{X: m.median, Y: row}}, m.Colour)
		if err != nil {
			return chart{}, err
		}
		dot.Radius *= 1.5
		p.Add(line, dot)
		if !slices.Contains(c.Legend, m.subjectMark) {
			c.Legend = append(c.Legend, m.subjectMark)
		}
		least, most = min(least, m.low), max(most, m.high)
	}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(loads)) - 0.5}})
	if err != nil {
		return chart{}, err
	}
	one.Color, one.Width = ink, 1
	p.Add(one)
	names := slices.Clone(loads)
	slices.Reverse(names)
	p.NominalY(names...)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, tenfold{}
	p.X.Min, p.X.Max = least/1.1, most*1.1
	p.Y.Min, p.Y.Max = -0.5, float64(len(loads))-0.5
	c.About = fmt.Sprintf("%s, as multiples of it, for %d loads; the tables have the figures", title, len(loads))
	c.SVG, err = svg(p, rowHeight*3/4*vg.Length(len(loads))+4*letters, c.About)
	return c, err
}

// charted are the units with a chart of their own, with how they are shown.
var charted = []struct {
	unit, title, axis string
	scale             float64
	label             func(float64) string
}{
	{results.CPU, "CPU per request", "us", 1e-3, micros},
	{results.HandshakeCPU, "CPU per handshake", "us", 1e-3, micros},
	{results.Resident, "Memory per connection", "KB", 1e-3, bytes},
	{results.Bytes, "Bytes per second of CPU", "MB", 1e-6, megabytes},
	{results.Throughput, "Requests per second", "thousands", 1e-3, number},
	{results.Shed, "Answers with status 503 per second", "thousands", 1e-3, number},
	{results.PeakResident, "Peak memory", "MB", 1e-6, bytes},
	{results.P99Rise, "p99 beside a greedy client, as a multiple of that without", "times", 1, ratio},
	{results.Handshakes, "Handshakes per second", "thousands", 1e-3, number},
	{results.Syscalls, "System calls per request", "calls", 1, calls},
}
