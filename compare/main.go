// Compare is the judging half of the lab: it reads result files, prints the
// README's tables and says whether a change made anything worse. It refuses to
// measure, to read the loads, and to let a missing or empty file pass.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"atlas/compare/gate"
	"atlas/compare/report"
	"atlas/results"
)

// Exit statuses beside those of gate.Outcome.
const (
	exitPass    = 0
	exitUsage   = 2
	exitInvalid = 3
)

const usage = `Compare reads the lab's result files. <results> is a file, results.bench, or the folder
of a run that has it, such as those in results/runs.

usage: compare <verb> [flags] <files>

  table <results>        print the README's tables with ours beside them
  verdict <old> <new>    say whether new is worse than old
                         -policy file: limits instead of the built-in policy.toml
  gate <directory>       say whether the candidate of a duet is worse than its base
                         -policy as above; -suspects: only name the scenarios that want a second stage
  generators <a> <b>     say whether runs by wrk and by vegeta agree on Atlas beside nginx-best
  goals <results>        say how close a run came to what Atlas is to reach; exit status 1: a goal is missed
                         -goals file: instead of the built-in goals.toml
  merge <results>...     add up what generators on several hosts saw of the same servers at the same time
                         -o directory: a new one, for the result
  numbers <documents>    write the marked parts of documents from the runs they name
                         -check: only say which are not what their runs say (exit status 3)
  report <results>       write a page of HTML with tables, charts and the machine's facts
                         -o file: instead of report.html beside the results
  serve                  show past runs and gates, two runs beside each other and the trend, to this machine alone
                         -listen address, -runs directory

Exit status: 0 pass, 1 regression or missed goal, 2 usage, 3 invalid input or measurement, 4 inconclusive.
`

//go:embed policy.toml
var policyText []byte

func main() {
	os.Exit(run(os.Stdout, os.Stderr, os.Args[1:]))
}

// run is the program: it returns the exit status.
func run(stdout, stderr io.Writer, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "table":
		return table(stdout, stderr, args)
	case "verdict":
		return verdict(stdout, stderr, args)
	case "gate":
		return judgeDuet(stdout, stderr, args)
	case "generators":
		return compareGenerators(stdout, stderr, args)
	case "goals":
		return compareGoals(stdout, stderr, args)
	case "merge":
		return merge(stdout, stderr, args)
	case "numbers":
		return numbers(stdout, stderr, args)
	case "serve":
		return serve(stdout, stderr, args)
	case "report":
		return writeReport(stdout, stderr, args)
	case "help", "-h", "-help", "--help":
		if len(args) > 0 && lineOf(args[0]) != "" {
			return run(stdout, stderr, []string{args[0], "-h"})
		}
		fmt.Fprint(stdout, usage)
		return exitPass
	}
	fmt.Fprintf(stderr, "compare: unknown verb %q\n\n%s", verb, usage)
	return exitUsage
}

// table is the verb `table`.
func table(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "table")
	if status, ok := parse(flags, args, 1); !ok {
		return status
	}
	f, err := results.Open(benchPath(flags.Arg(0)))
	if err != nil {
		fmt.Fprintf(stderr, "compare table: %v\n", err)
		return exitInvalid
	}
	published, err := results.LoadPublished()
	if err != nil {
		fmt.Fprintf(stderr, "compare table: %v\n", err)
		return exitInvalid
	}
	report.Tables(stdout, f, published)
	return exitPass
}

// verdict is the verb `verdict`.
func verdict(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "verdict")
	policyFile := flags.String("policy", "", "`file` with the limits, instead of the built-in ones")
	if status, ok := parse(flags, args, 2); !ok {
		return status
	}
	policy, err := loadPolicy(*policyFile)
	if err != nil {
		fmt.Fprintf(stderr, "compare verdict: %v\n", err)
		return exitUsage
	}
	old, errOld := results.Open(benchPath(flags.Arg(0)))
	new, errNew := results.Open(benchPath(flags.Arg(1)))
	if err := errors.Join(errOld, errNew); err != nil {
		fmt.Fprintf(stderr, "compare verdict: %v\n", err)
		return exitInvalid
	}
	rows := gate.Compare(old, new, policy)
	outcome, reason := gate.Conclude(rows)
	report.Verdicts(stdout, old, new, rows, outcome, reason)
	return int(outcome)
}

// loadPolicy reads a file, or the built-in policy where it is "".
func loadPolicy(path string) (*gate.Policy, error) {
	text := policyText
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	} else {
		path = "policy.toml"
	}
	policy, err := gate.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return policy, nil
}

// benchName is the file with a run's results, in its folder.
const benchName = "results.bench"

// benchPath is the results file that a path means: itself, or that of a run's folder.
func benchPath(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, benchName)
	}
	return path
}

// some is a number of files, which is not 0.
const some = -1

func newFlags(stderr io.Writer, verb string) *flag.FlagSet {
	flags := flag.NewFlagSet("compare "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: compare %s\n", lineOf(verb))
		flags.PrintDefaults()
	}
	return flags
}

// lineOf is the line of the usage about a verb; "" of what is none.
func lineOf(verb string) string {
	_, after, found := strings.Cut(usage, "\n  "+verb+" ")
	if !found {
		return ""
	}
	line, _, _ := strings.Cut(after, "\n")
	files, does, _ := strings.Cut(strings.TrimSpace(line), "  ")
	if does == "" { // it takes no files
		return verb + ": " + files
	}
	return verb + " " + files + ": " + strings.TrimSpace(does)
}

// parse reads flags and counts the files, of which some takes any number but none;
// where it fails or help was asked for, ok is false and status is the exit status.
func parse(flags *flag.FlagSet, args []string, files int) (status int, ok bool) {
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitPass, false
	}
	if err != nil {
		return exitUsage, false // flag has said why
	}
	if files == some && flags.NArg() > 0 {
		return 0, true
	}
	if flags.NArg() != files {
		want := fmt.Sprint(files)
		if files == some {
			want = "1 or more"
		}
		fmt.Fprintf(flags.Output(), "%s: %d paths given, want %s\n\n%s", flags.Name(), flags.NArg(), want, usage)
		return exitUsage, false
	}
	return 0, true
}
