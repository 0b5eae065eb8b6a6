package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"atlas/proxy/admin"
	"atlas/proxy/config"
	"atlas/proxy/server"
)

const checkLong = `
Reads CONFIG, or ./atlas.toml, and tries what a start would: the root, certificates with
their keys, authorities, the OCSP response, whether the access log may be written, and
whether this machine has the addresses. Nothing is listened on, and nobody is connected
to: whether a port is free is for atlas doctor CONFIG. Every problem is told, with its
place and what to do; exit status 2 if there is one. While the text itself is wrong, what
it names is not looked at. Warnings are about what is allowed and probably not meant.

With --json: {"file", "ok", "errors", "warnings"}; of each error and warning "file",
"line", "column" and "width" (from 1, in characters; 0 without a place), "key",
"message", "hint", "source" (the line).
`

func checkCommand() verb {
	return verb{
		name: "check", args: "[CONFIG]", short: "say everything that is wrong with it, and exit", long: checkLong,
		flags: []flag{
			{name: "json", short: "for programs: one JSON object on standard output"},
			{name: "print", short: "print the configuration as it takes effect, and where each value is from"},
			{name: "names", short: "look up the host names as well"},
			{name: "text", short: "look at nothing but the file itself"},
		},
		run: check,
	}
}

// resolveMax is how long all names may take together.
const resolveMax = 10 * time.Second

// checked is what check has to say, in the form of --json.
type checked struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Errors   []problem `json:"errors"`
	Warnings []problem `json:"warnings"`
}

// problem is a config.Error in JSON.
type problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Width   int    `json:"width"`
	Key     string `json:"key"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	Source  string `json:"source"`
}

func check(c *call) int {
	if c.has("json") && c.has("print") {
		fmt.Fprintln(c.stderr, "atlas: --print prints a file, and --json prints JSON: one of the two")
		return exitUsage
	}
	reading, err := readConfig(c.arg(0))
	var wrong config.Errors
	var warnings []config.Warning
	if reading != nil {
		wrong, warnings = examine(c, reading)
	} else if !errors.As(err, &wrong) {
		wrong = config.Errors{{File: c.arg(0), Message: err.Error()}}
	}
	switch {
	case c.has("json"):
		writeChecked(c, wrong, warnings)
	case reading == nil:
		fmt.Fprintln(c.stderr, err)
		if len(wrong) > 0 && wrong[0].Line > 0 && !c.has("text") {
			fmt.Fprintln(c.stderr, "the files and addresses that it names are looked at when this is right")
		}
	default:
		for i := range warnings {
			fmt.Fprintln(c.stderr, warnings[i].String())
		}
		for i := range wrong {
			fmt.Fprintln(c.stderr, wrong[i].Error())
		}
	}
	if reading != nil && c.has("print") {
		fmt.Fprint(c.stdout, reading.Print())
	}
	if len(wrong) > 0 {
		return exitUsage
	}
	if !c.has("print") && !c.has("json") {
		fmt.Fprintf(c.stdout, "%s: ok\n", reading.Config.File)
	}
	return exitOK
}

// examine looks at what a good configuration names.
func examine(c *call, reading *config.Reading) (wrong config.Errors, warnings []config.Warning) {
	warnings = reading.Warnings
	cfg := reading.Config
	var found []server.Finding
	if !c.has("text") {
		found = server.Examine(cfg)
		if cfg.Admin.Address != "" {
			found = append(found, admin.Examine(&cfg.Admin)...)
		}
	}
	if c.has("names") {
		ctx, cancel := context.WithTimeout(context.Background(), resolveMax)
		defer cancel()
		found = append(found, server.ExamineNames(ctx, cfg)...)
	}
	for _, f := range found {
		p := reading.Problem(f.Key, f.Message, f.Hint)
		if f.Warning {
			warnings = append(warnings, config.Warning(*p))
		} else {
			wrong = append(wrong, *p)
		}
	}
	return wrong, warnings
}

func writeChecked(c *call, wrong config.Errors, warnings []config.Warning) {
	v := checked{File: c.arg(0), OK: len(wrong) == 0, Errors: []problem{}, Warnings: []problem{}}
	if v.File == "" {
		v.File = config.DefaultFile
	}
	for i := range wrong {
		v.Errors = append(v.Errors, problem(wrong[i]))
	}
	for i := range warnings {
		v.Warnings = append(v.Warnings, problem(warnings[i]))
	}
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	// There is nobody else to tell that standard output is gone.
	_ = encoder.Encode(&v)
}
