package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"atlas/harness/origin"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// brought are the flags for servers that the lab has not.
type brought struct {
	files, urls []string
}

func (b *brought) flags(flags *flag.FlagSet) {
	add := func(to *[]string) func(string) error {
		return func(text string) error {
			*to = append(*to, text)
			return nil
		}
	}
	flags.Func("subject-file", "TOML `file` of a server to start and measure as well, as docs/lab.md has it; "+
		"may be repeated", add(&b.files))
	flags.Func("url", "`name=http://host:port` of a server to measure as well, which runs already; "+
		"with ,pid=N its CPU time, too; wants -scenario; may be repeated", add(&b.urls))
}

// subjects reads what the flags name. A server that runs already does what it does:
// only who names the scenarios can know what that is.
func (b *brought) subjects(pattern string) ([]subject.Subject, error) {
	var all []subject.Subject
	for _, path := range b.files {
		one, err := subject.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for _, text := range b.urls {
		one, err := subject.AtURL(text)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for i, one := range all {
		for _, earlier := range all[:i] {
			if one.Name == earlier.Name {
				return nil, fmt.Errorf("two of -subject-file and -url name %q: give each a name of its own", one.Name)
			}
		}
	}
	if len(b.urls) > 0 && pattern == "" {
		return nil, errors.New("-url wants -scenario: whether a server that runs already serves files or forwards, " +
			"you know and the lab does not")
	}
	return all, nil
}

// excuse notes which scenarios a server that was brought takes no part in, and what of
// it is not measured. It is an error to take part in none.
func (o *options) excuse() error {
	for _, one := range o.foreign {
		if !o.measures(one.Name) {
			continue
		}
		var reasons []string
		for _, s := range o.scenarios {
			if reason := one.Declines(s); reason != nil {
				reasons = append(reasons, fmt.Sprintf("%s takes no part in %s: %v", one.Name, s.Name, reason))
			}
		}
		if len(reasons) == len(o.scenarios) {
			return errors.New(strings.Join(reasons, "; "))
		}
		o.notes = append(o.notes, reasons...)
		if one.ByURL() {
			o.note("%s runs already: the lab does not choose its core and its workers", one.Name)
		}
		if !one.Metered() {
			o.note("%s has no figures of CPU time: its process is not known (-url with ,pid=N)", one.Name)
		}
	}
	return nil
}

// measures says whether a subject is in the run.
func (o *options) measures(name string) bool {
	for _, s := range o.subjects {
		if s.Name == name {
			return true
		}
	}
	return false
}

// writeDocuments is the verb `documents`.
func writeDocuments(stdout, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness documents", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("scenario", "*", "comma-separated `globs` of the scenarios that ask for them")
	dir := flags.String("o", "", "`directory` to write them to, which is made")
	if status, ok := parse(flags, args); !ok {
		return status
	}
	lengths, err := writeTo(*dir, *pattern)
	if err != nil {
		fmt.Fprintf(stderr, "harness documents: %v\n", err)
		return exitUsage
	}
	for path, length := range lengths {
		fmt.Fprintf(stdout, "%s: %d bytes\n", filepath.Join(*dir, filepath.FromSlash(path)), length)
	}
	return exitPass
}

func writeTo(dir, pattern string) (map[string]int, error) {
	if dir == "" {
		return nil, errors.New("-o is missing: name a directory")
	}
	all, err := scenarios.Match(scenarios.Files, pattern)
	if err != nil {
		return nil, err
	}
	lengths, err := documents(all)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return lengths, origin.WriteTree(dir, lengths)
}
