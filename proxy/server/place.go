package server

import (
	"errors"
	"fmt"
	"strings"

	"atlas/proxy/config"
)

// A KeyError is what is wrong with something outside of the configuration that one
// of its keys names: an address that another program has, say.
type KeyError struct {
	Key string // "listen.port"
	Err error
}

func (e *KeyError) Error() string { return e.Err.Error() }

func (e *KeyError) Unwrap() error { return e.Err }

// Place says where in its file a configuration names what could not be opened: err,
// in the form of what is wrong with the text itself. It looks at everything once
// more, so that all that is wrong is told; where it finds nothing, or reading is nil,
// err stays as it is.
func Place(reading *config.Reading, err error) error {
	if reading == nil {
		return err
	}
	var of *KeyError
	if errors.As(err, &of) {
		if p := reading.Problem(of.Key, of.Error(), ""); p != nil {
			return config.Errors{*p}
		}
		return err
	}
	var all config.Errors
	for _, f := range Examine(reading.Config) {
		if p := reading.Problem(f.Key, f.Key+": "+f.Message, f.Hint); p != nil && !f.Warning {
			all = append(all, *p)
		}
	}
	if all == nil {
		return err
	}
	return all
}

// InLine is an error in one line, each problem of a configuration with its place.
func InLine(err error) string { return strings.Join(split(err), "; ") }

// split is each problem on its own, in one line.
func split(err error) (problems []string) {
	var all config.Errors
	if !errors.As(err, &all) {
		return []string{strings.ReplaceAll(err.Error(), "\n", ": ")}
	}
	for i := range all {
		e := &all[i]
		text := place(e.File, e.Line, e.Column) + ": " + e.Message
		if e.Hint != "" {
			text += " (" + e.Hint + ")"
		}
		problems = append(problems, text)
	}
	return problems
}

func place(file string, line, column int) string { return fmt.Sprintf("%s:%d:%d", file, line, column) }
