package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// list is the verb `list`.
func list(stdout, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness list", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if status, ok := parse(flags, args); !ok {
		return status
	}
	all, err := scenarios.Match(scenarios.Files, "*")
	if err != nil {
		fmt.Fprintf(stderr, "harness list: %v\n", err)
		return exitUsage
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "scenarios")
	for _, s := range all {
		form := "full form"
		if s.Curve() {
			form = "curve"
		}
		if quick := s.Load.Quick; len(quick) == len(s.Load.Conns) {
			form = "quick form"
		} else if len(quick) > 0 {
			form = fmt.Sprintf("quick form: %v", quick)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", s.Name, describe(s), form, s.About)
	}
	fmt.Fprintln(w, "forms")
	cores := len(host.Allowed())
	for _, f := range []struct{ flag, about string }{
		{"(none)", quickForm.about(cores)}, {"-full", fullForm.about(cores)}, {"-curves", curvesForm.about(cores)},
	} {
		fmt.Fprintf(w, "  %s\t%s\n", f.flag, f.about)
	}
	fmt.Fprintln(w, "subjects")
	for _, s := range subject.All() {
		fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.About)
	}
	return exitPass
}

// describe is a scenario's load in a few words.
func describe(s *scenarios.Scenario) string {
	if s.Load.Mode == scenarios.Open {
		return fmt.Sprintf("open, %d/s", s.Load.Rate)
	}
	if s.Load.Of != scenarios.Requests {
		return fmt.Sprintf("%s, conns %v", s.Load.Of, s.Load.Conns)
	}
	if each := s.Each(); len(each) > 1 {
		values := []string{}
		for _, one := range each {
			values = append(values, one.At.At)
		}
		return fmt.Sprintf("closed, conns %v, %s [%s]", s.Load.Conns, each[0].At.Vary, strings.Join(values, " "))
	}
	return fmt.Sprintf("closed, conns %v", s.Load.Conns)
}

// doctor is the verb `doctor`.
func doctor(stdout, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	atlas := flags.String("atlas", "bin/atlas", "`path` of Atlas's binary")
	if status, ok := parse(flags, args); !ok {
		return status
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	cores := host.Split(host.Allowed(), host.Siblings)
	fmt.Fprintf(w, "server core\t%s\n", host.List(cores.Server))
	fmt.Fprintf(w, "load cores\t%s\n", host.List(cores.Client))
	for _, f := range host.Facts() {
		fmt.Fprintf(w, "%s\t%s\n", f.Key, f.Value)
	}
	for _, program := range []struct{ name, flag, without string }{
		{"nginx", "-v", "go-nethttp is the peer and the origin is Go's net/http"},
		{"wrk", "-v", "vegeta drives the closed loop, too"},
		{"haproxy", "-v", "the table of the corpus has no column of it"},
	} {
		path, err := host.Find(program.name)
		if err != nil {
			fmt.Fprintf(w, "%s\tMISSING: %v (without it %s)\n", program.name, err, program.without)
			continue
		}
		fmt.Fprintf(w, "%s\t%s, %s\n", program.name, path, host.Version(path, program.flag))
	}
	if nginx, err := subject.Named([]string{"nginx-best"}); err == nil && nginx[0].Missing(subject.Programs{}) == nil {
		if _, err := nginx[0].Here(subject.Programs{}); err != nil {
			fmt.Fprintf(w, "nginx, TCP mode\tMISSING: %v\n", err)
		}
	}
	if _, err := os.Stat(*atlas); err != nil {
		fmt.Fprintf(w, "atlas\tMISSING: %s: run `make build`\n", *atlas)
	} else {
		fmt.Fprintf(w, "atlas\t%s\n", *atlas)
	}
	if err := host.CallsCounted(); err != nil {
		fmt.Fprintf(w, "system calls\tMISSING: %v\n", err)
	} else {
		fmt.Fprintf(w, "system calls\tcan be counted\n")
	}
	for _, text := range []string{cores.Warning, host.Noise()} {
		if text != "" {
			fmt.Fprintf(w, "note\t%s\n", text)
		}
	}
	return exitPass
}
