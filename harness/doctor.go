package main

import (
	"flag"
	"fmt"
	"io"
	"os"
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
		load := fmt.Sprintf("closed, conns %v", s.Load.Conns)
		if s.Load.Mode == scenarios.Open {
			load = fmt.Sprintf("open, %d/s", s.Load.Rate)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", s.Name, load, s.About)
	}
	fmt.Fprintln(w, "subjects")
	for _, s := range subject.All() {
		fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.About)
	}
	return exitPass
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
	if _, err := os.Stat(*atlas); err != nil {
		fmt.Fprintf(w, "atlas\tMISSING: %s: run `make build`\n", *atlas)
	} else {
		fmt.Fprintf(w, "atlas\t%s\n", *atlas)
	}
	for _, text := range []string{cores.Warning, host.Noise()} {
		if text != "" {
			fmt.Fprintf(w, "note\t%s\n", text)
		}
	}
	return exitPass
}
