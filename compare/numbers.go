package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"

	"atlas/compare/gate"
	"atlas/compare/report"
	"atlas/results"
)

// numbersMark encloses a part of a document that is written from a run: its
// kind, and the results file as seen from the document.
var numbersMark = regexp.MustCompile(`(?s)<!-- numbers (\S+) (\S+) -->\n.*?<!-- /numbers -->\n`)

// numbers is the verb `numbers`.
func numbers(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "numbers")
	check := flags.Bool("check", false, "write nothing; say which document is not what its runs say")
	if status, ok := parse(flags, args, some); !ok {
		return status
	}
	status := exitPass
	for _, path := range flags.Args() {
		text, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintf(stderr, "compare numbers: %v\n", err)
			return exitUsage
		}
		want, err := renumber(text, filepath.Dir(path))
		switch {
		case err != nil:
			fmt.Fprintf(stderr, "compare numbers: %s: %v\n", path, err)
			return exitInvalid
		case bytes.Equal(text, want):
			fmt.Fprintf(stdout, "%s: as its runs say\n", path)
		case *check:
			fmt.Fprintf(stderr, "compare numbers: %s: %s; make numbers writes it anew\n",
				path, firstDifference(text, want))
			status = exitInvalid
		default:
			if err := os.WriteFile(path, want, 0o644); err != nil {
				fmt.Fprintf(stderr, "compare numbers: %v\n", err)
				return exitUsage
			}
			fmt.Fprintf(stdout, "%s: written\n", path)
		}
	}
	return status
}

// renumber returns a document with every marked part as its run says.
func renumber(text []byte, dir string) ([]byte, error) {
	published, err := results.LoadPublished()
	if err != nil {
		return nil, err
	}
	kinds := maps.Clone(report.Numbers)
	kinds["goals"] = writeGoals
	marks := numbersMark.FindAllSubmatch(text, -1)
	if opened := bytes.Count(text, []byte("<!-- numbers ")); opened == 0 || opened != len(marks) {
		return nil, fmt.Errorf("%d parts begin with <!-- numbers KIND FILE -->, %d of them end with <!-- /numbers -->",
			opened, len(marks))
	}
	done := numbersMark.ReplaceAllFunc(text, func(part []byte) []byte {
		mark := numbersMark.FindSubmatch(part)
		kind, file := string(mark[1]), string(mark[2])
		writePart, ok := kinds[kind]
		if !ok {
			err = fmt.Errorf("no part of a document is named %q", kind)
			return part
		}
		f, openErr := results.Open(filepath.Join(dir, file))
		if openErr != nil {
			err = openErr
			return part
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "<!-- numbers %s %s -->\n\n", kind, file)
		writePart(&b, f, published)
		b.WriteString("\n<!-- /numbers -->\n")
		return b.Bytes()
	})
	return done, err
}

// writeGoals is of the built-in goals; a run without any leaves a line that says so.
func writeGoals(w io.Writer, f *results.File, _ *results.Published) {
	goals, err := gate.ParseGoals(goalsText)
	if err == nil {
		_, err = report.Goals(w, f, goals)
	}
	if err != nil {
		fmt.Fprintf(w, "goals: %v\n", err)
	}
}

// firstDifference names the first line that differs.
func firstDifference(got, want []byte) string {
	had, wanted := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(had), len(wanted)) {
		if !bytes.Equal(had[i], wanted[i]) {
			return fmt.Sprintf("line %d is %q, and its run says %q", i+1, had[i], wanted[i])
		}
	}
	return fmt.Sprintf("%d lines, and its runs say %d", len(had), len(wanted))
}
