package gate

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"atlas/results"
)

// Policy is what counts as a regression; policy.toml explains each key.
type Policy struct {
	Alpha      float64      `toml:"alpha"`
	SamplesMin int          `toml:"samples_min"`
	Reference  string       `toml:"reference"`
	Control    string       `toml:"control"`
	Units      []UnitPolicy `toml:"unit"`
	Gate       GatePolicy   `toml:"gate"`
}

// GatePolicy is what a duet is judged by. Shares are of CPU time per request.
type GatePolicy struct {
	Limit       float64 `toml:"limit"`
	Alpha       float64 `toml:"alpha"`
	Width       float64 `toml:"width"`
	Control     float64 `toml:"control"`
	Trim        float64 `toml:"trim"`
	RestartsMin int     `toml:"restarts_min"`
}

// UnitPolicy is the limit of one unit.
type UnitPolicy struct {
	Name       string  `toml:"name"`
	Tolerance  float64 `toml:"tolerance"` // share of loss that is accepted
	ReportOnly bool    `toml:"report_only"`
}

// ParsePolicy reads a policy strictly: a key it does not know is an error.
func ParsePolicy(text []byte) (*Policy, error) {
	var p Policy
	if err := decodeStrict(text, &p); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return &p, nil
}

// decodeStrict fills what into points to, and tells where a key is that it has not.
func decodeStrict(text []byte, into any) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(into)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := &unknown.Errors[0]
		line, column := first.Position()
		return fmt.Errorf("%d:%d: unknown key %q", line, column, strings.Join(first.Key(), "."))
	}
	return err
}

// samplesLeast is the fewest samples whose median has a finite 95 % interval.
const samplesLeast = 6

func (p *Policy) check() error {
	if p.Alpha <= 0 || p.Alpha > 0.2 {
		return fmt.Errorf("alpha is %v, want more than 0 and at most 0.2", p.Alpha)
	}
	if p.SamplesMin < samplesLeast {
		return fmt.Errorf("samples_min is %d, want at least %d", p.SamplesMin, samplesLeast)
	}
	if p.Reference == "" {
		return errors.New("reference is missing")
	}
	if p.Reference == p.Control {
		return fmt.Errorf("control and reference are both %q", p.Control)
	}
	deciding := 0
	for _, u := range p.Units {
		known, ok := results.UnitNamed(u.Name)
		if !ok || known.Better == 0 {
			return fmt.Errorf("unit %q is unknown or has no direction", u.Name)
		}
		if u.Tolerance <= 0 || u.Tolerance >= 1 {
			return fmt.Errorf("unit %s: tolerance is %v, want a share between 0 and 1", u.Name, u.Tolerance)
		}
		if !u.ReportOnly {
			deciding++
		}
	}
	if deciding == 0 {
		return errors.New("no unit decides: the gate could never fail")
	}
	return p.Gate.check()
}

func (g *GatePolicy) check() error {
	for _, one := range []struct {
		key         string
		value, most float64
	}{
		{"limit", g.Limit, 0.5}, {"alpha", g.Alpha, 0.2}, {"width", g.Width, 0.5}, {"control", g.Control, 0.5},
	} {
		if one.value <= 0 || one.value > one.most {
			return fmt.Errorf("gate.%s is %v, want more than 0 and at most %v", one.key, one.value, one.most)
		}
	}
	if g.Trim < 0 || g.Trim >= 0.5 {
		return fmt.Errorf("gate.trim is %v, want 0 or more and less than 0.5", g.Trim)
	}
	if g.RestartsMin < restartsLeast {
		return fmt.Errorf("gate.restarts_min is %d, want at least %d", g.RestartsMin, restartsLeast)
	}
	return nil
}

// restartsLeast are as many as there are orders of three arms.
const restartsLeast = 6
