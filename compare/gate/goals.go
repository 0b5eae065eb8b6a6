package gate

import (
	"errors"
	"fmt"

	"atlas/results"
)

// Goal is what a subject is to reach in one scenario; goals.toml explains each key.
type Goal struct {
	About    string    `toml:"about"`
	Scenario string    `toml:"scenario"`
	Conns    []int     `toml:"conns"`
	Subject  string    `toml:"subject"` // "" is Atlas
	Unit     string    `toml:"unit"`
	Against  string    `toml:"against"`
	Beside   string    `toml:"beside"`
	Most     []float64 `toml:"most"`
	Least    []float64 `toml:"least"`
}

// ParseGoals reads goals strictly: a key it does not know is an error.
func ParseGoals(text []byte) ([]Goal, error) {
	var all struct {
		Goals []Goal `toml:"goal"`
	}
	if err := decodeStrict(text, &all); err != nil {
		return nil, err
	}
	if len(all.Goals) == 0 {
		return nil, errors.New("it has no [[goal]]")
	}
	for i := range all.Goals {
		g := &all.Goals[i]
		if g.Subject == "" {
			g.Subject = "atlas"
		}
		if err := g.check(); err != nil {
			return nil, fmt.Errorf("goal %d, %q: %w", i+1, g.About, err)
		}
	}
	return all.Goals, nil
}

func (g *Goal) check() error {
	bounds := len(g.Most) + len(g.Least)
	switch _, known := results.UnitNamed(g.Unit); {
	case g.About == "" || g.Scenario == "":
		return errors.New("about and scenario say what it is of: both are wanted")
	case len(g.Conns) == 0:
		return errors.New("conns is empty: name at least one count of connections")
	case !known:
		return fmt.Errorf("unit %q is unknown", g.Unit)
	case g.Against != "" && g.Beside != "":
		return errors.New("against and beside exclude each other")
	case len(g.Most) > 0 && len(g.Least) > 0:
		return errors.New("most and least exclude each other")
	case bounds != 1 && bounds != len(g.Conns):
		return fmt.Errorf("%d bounds in most or least, want one, or one for each of %d conns", bounds, len(g.Conns))
	}
	return nil
}

// Bound is the goal at the i-th count of connections, and whether it is the most.
func (g *Goal) Bound(i int) (bound float64, most bool) {
	all := append(g.Most, g.Least...) // one of the two is empty
	return all[min(i, len(all)-1)], len(g.Most) > 0
}
