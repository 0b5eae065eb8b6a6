package report

import (
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart is one picture with what it says in words.
type chart struct {
	Title  string
	About  string        // for those who do not see it
	SVG    template.HTML // with colours of the page's own, so that it turns dark with it
	Legend []subjectMark // empty where the picture names its subjects
}

// subjectMark is a subject with the number of its colour.
type subjectMark struct {
	Name   string
	Colour int
}

// series are the figures of one subject, in the order measured.
type series struct {
	subjectMark
	values []float64
	median float64
}

// Charts are drawn for the width of a phone and never made narrower, so that
// their letters stay as large as they are here.
const (
	chartWidth  = 330 * vg.Length(1)
	chartHeight = 210 * vg.Length(1)
	rowHeight   = 24 * vg.Length(1)
	letters     = 11 * vg.Length(1)
	dotRadius   = 2.2 * vg.Length(1)
)

// Colours stand for variables of the page: the red part says which, the green
// part is the number of a subject.
var (
	ink   = color.RGBA{R: 1, A: 255}
	faint = color.RGBA{R: 2, A: 255}
)

func pale(colour int) color.Color  { return color.RGBA{R: 3, G: uint8(colour), A: 255} }
func solid(colour int) color.Color { return color.RGBA{R: 4, G: uint8(colour), A: 255} }

// coloursMax is how many colours of subjects the page has.
const coloursMax = 8

var (
	stand      = regexp.MustCompile(`(fill|stroke):#0([1-4])([0-9A-F]{2})00\b`)
	prologue   = regexp.MustCompile(`(?s)^.*?<svg [^>]*viewBox="([^"]*)"[^>]*>`)
	fontFamily = regexp.MustCompile(`font-family:[^;]*;font-variant:[a-z]*;font-weight:[a-z]*;font-style:[a-z]*;`)
)

// The page's letters may be wider than those that the plot measures.
const (
	lettersMeasured = "font-size:11px"
	lettersDrawn    = "font-size:10px"
)

// newPlot returns an empty plot in the page's letters and colours.
func newPlot(xLabel, yLabel string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	handler := text.Plain{Fonts: font.DefaultCache}
	p.TextHandler = handler
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		for _, style := range []*text.Style{&axis.Label.TextStyle, &axis.Tick.Label} {
			style.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, letters)
			style.Handler = handler
			style.Color = ink
		}
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = faint, faint
		axis.Padding = 3
	}
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	return p
}

// grid draws the lines behind everything.
func grid(vertical, horizontal bool) *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = nil, nil
	if vertical {
		g.Vertical.Color = faint
	}
	if horizontal {
		g.Horizontal.Color = faint
	}
	return g
}

// svg draws p for the inside of a page.
func svg(p *plot.Plot, height vg.Length, about string) (template.HTML, error) {
	canvas := vgsvg.New(chartWidth, height)
	p.Draw(draw.New(canvas))
	var b strings.Builder
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	drawn := prologue.ReplaceAllString(b.String(),
		`<svg viewBox="$1" role="img" aria-label="`+template.HTMLEscapeString(about)+`">`)
	drawn = fontFamily.ReplaceAllString(drawn, "")
	drawn = strings.ReplaceAll(drawn, lettersMeasured, lettersDrawn)
	drawn = stand.ReplaceAllStringFunc(drawn, func(style string) string {
		m := stand.FindStringSubmatch(style)
		n, _ := strconv.ParseUint(m[3], 16, 8) // two digits, as matched
		variable := fmt.Sprintf("%s:var(--s%d)", m[1], n%coloursMax)
		switch m[2] {
		case "1":
			return m[1] + ":var(--ink)"
		case "2":
			return m[1] + ":var(--faint)"
		case "3":
			return variable + ";fill-opacity:.3"
		}
		return variable
	})
	return template.HTML(drawn), nil
}

// spread draws each figure of each subject as a dot, and the median as a bar.
func spread(title, unit string, scale float64, all []series, label func(float64) string) (chart, error) {
	p := newPlot(unit, "")
	p.Add(grid(true, false))
	var names, words []string
	most := 0.0                          // with room for a dot
	for i := len(all) - 1; i >= 0; i-- { // the first is on top
		names = append(names, all[i].Name)
		for _, v := range all[i].values {
			most = max(most, 1.05*v*scale)
		}
	}
	for i, s := range all {
		row := float64(len(all) - 1 - i)
		if err := addSpread(p, s, row, scale, most, label); err != nil {
			return chart{}, err
		}
		words = append(words, s.Name+" "+label(s.median))
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max, p.X.Tick.Marker = 0, most, plain{}
	p.Y.Min, p.Y.Max = -0.5, float64(len(all))-0.5
	about := title + ": medians " + strings.Join(words, ", ")
	drawn, err := svg(p, rowHeight*vg.Length(len(all))+3.5*letters, about)
	return chart{Title: title, About: about, SVG: drawn}, err
}

// addSpread draws one row.
func addSpread(p *plot.Plot, s series, row, scale, most float64, label func(float64) string) error {
	bar, err := plotter.NewBarChart(plotter.Values{s.median * scale}, rowHeight*2/3)
	if err != nil {
		return err
	}
	bar.Horizontal, bar.XMin = true, row
	bar.Color, bar.LineStyle.Width = pale(s.Colour), 0
	at := s.median * scale
	mark, err := plotter.NewLine(plotter.XYs{{X: at, Y: row - 0.33}, {X: at, Y: row + 0.33}})
	if err != nil {
		return err
	}
	mark.Color, mark.Width = solid(s.Colour), 2
	dots := make(plotter.XYs, len(s.values))
	for i, v := range s.values {
		// From top to bottom as they were measured.
		down := 0.5 - (float64(i)+0.5)/float64(len(s.values))
		dots[i] = plotter.XY{X: v * scale, Y: row + 0.5*down}
	}
	scatter, err := dotsOf(dots, s.Colour)
	if err != nil {
		return err
	}
	words, err := plotter.NewLabels(plotter.XYLabels{
		XYs: plotter.XYs{{X: most, Y: row}}, Labels: []string{"  " + label(s.median)},
	})
	if err != nil {
		return err
	}
	words.TextStyle[0] = p.X.Tick.Label
	words.TextStyle[0].XAlign, words.TextStyle[0].YAlign = text.XLeft, text.YCenter
	p.Add(bar, mark, scatter, words)
	return nil
}

func dotsOf(dots plotter.XYs, colour int) (*plotter.Scatter, error) {
	scatter, err := plotter.NewScatter(dots)
	if err != nil {
		return nil, err
	}
	scatter.GlyphStyle = draw.GlyphStyle{Color: solid(colour), Radius: dotRadius, Shape: draw.CircleGlyph{}}
	return scatter, nil
}

// plain labels about four round figures.
type plain struct{}

// Ticks are at multiples of 1, 2 or 5.
func (plain) Ticks(least, most float64) []plot.Tick {
	const wanted = 4
	step := math.Pow(10, math.Floor(math.Log10((most-least)/wanted)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if (most-least)/(step*factor) <= wanted {
			step *= factor
			break
		}
	}
	var ticks []plot.Tick
	for n := math.Ceil(least / step); n*step <= most*(1+1e-9); n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: strconv.FormatFloat(n*step, 'g', 4, 64)})
	}
	return ticks
}

// tenfold labels 1, 2 and 5 times the powers of ten.
type tenfold struct{}

// Ticks are for a logarithmic axis.
func (tenfold) Ticks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Pow(10, math.Floor(math.Log10(least))); power <= most; power *= 10 {
		for _, factor := range []float64{1, 2, 5} {
			if v := power * factor; v >= least && v <= most {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 3, 64)})
			}
		}
	}
	return ticks
}
