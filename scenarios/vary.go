package scenarios

import (
	"errors"
	"fmt"
	"strconv"
)

// Vary is a key with several values, which are measured one by one: the points
// of a curve. At most one of its lists is there, and the key that it stands for
// is not.
type Vary struct {
	Length  []int `toml:"length"`  // target.length; its path goes below a directory of each
	Cores   []int `toml:"cores"`   // shared.cores
	Headers []int `toml:"headers"` // load.headers
}

// Point is a key that varies and its value.
type Point struct {
	Vary, At string // both "" where nothing varies
}

// axis is one list of a Vary.
type axis struct {
	key         string
	values      []int
	least, most int
	instead     int // what the key itself has
	set         func(*Scenario, int)
}

// axes are the lists that are there.
func (s *Scenario) axes() []axis {
	var there []axis
	for _, one := range []axis{
		{"length", s.Vary.Length, 0, lengthMax, s.Target.Length, setLength},
		{"cores", s.Vary.Cores, 1, sharedMax, s.Shared.Cores, func(s *Scenario, n int) { s.Shared.Cores = n }},
		{"headers", s.Vary.Headers, 0, headersMax, s.Load.Headers, func(s *Scenario, n int) { s.Load.Headers = n }},
	} {
		if one.values != nil {
			there = append(there, one)
		}
	}
	return there
}

// largeMin is the length of documents from which on the origin sends them
// without a copy: those below /large/.
const largeMin = 1 << 20

// setLength gives each length a document of its own.
func setLength(s *Scenario, n int) {
	s.Target.Length = n
	s.Target.Path = fmt.Sprintf("/%d%s", n, s.Target.Path)
	if n >= largeMin {
		s.Target.Path = "/large" + s.Target.Path
	}
}

// Each returns a scenario for each value that varies, with At set, or the
// scenario itself.
func (s *Scenario) Each() []*Scenario {
	var all []*Scenario
	for _, a := range s.axes() {
		for _, n := range a.values {
			one := *s
			one.At = Point{a.key, strconv.Itoa(n)}
			a.set(&one, n)
			all = append(all, &one)
		}
	}
	if all == nil {
		return []*Scenario{s}
	}
	return all
}

// curvePoints of a key, and more, are a curve; fewer are cells to compare.
const curvePoints = 3

// Curve says whether the scenario is there for the shape of a figure over a key,
// rather than for the figure.
func (s *Scenario) Curve() bool {
	return len(s.axes()) > 0 || s.At.Vary != "" || len(s.Load.Conns) >= curvePoints
}

// checkVary says what is wrong with the list, if there is one.
func (s *Scenario) checkVary() error {
	there := s.axes()
	if len(there) == 0 {
		return nil
	}
	a := there[0]
	switch {
	case len(there) > 1:
		return fmt.Errorf("vary.%s is beside vary.%s: want one of them", there[1].key, a.key)
	case len(s.Load.Conns) > 1:
		return errors.New("load.conns has several counts, but vary is there: want one")
	case a.instead != 0:
		return fmt.Errorf("vary.%s is there, and the key that it stands for has %d: want one of them", a.key, a.instead)
	case len(a.values) < 2:
		return fmt.Errorf("vary.%s has %d values, want two or more", a.key, len(a.values))
	}
	for i, n := range a.values {
		if n < a.least || n > a.most {
			return fmt.Errorf("vary.%s has %d, want %d to %d", a.key, n, a.least, a.most)
		}
		if i > 0 && n <= a.values[i-1] {
			return fmt.Errorf("vary.%s has %d after %d, want ascending values", a.key, n, a.values[i-1])
		}
	}
	return nil
}
