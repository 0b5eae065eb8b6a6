package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"atlas/results"
)

// merge is the verb `merge`.
func merge(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "merge")
	out := flags.String("o", "", "`directory` to make and to write results.bench and results.hlog to")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitPass
	} else if err != nil {
		return exitUsage // flag has said why
	}
	if *out == "" {
		fmt.Fprint(stderr, "compare merge: say where to: -o DIRECTORY\n")
		return exitUsage
	}
	var parts []results.Part
	var failed error
	for _, path := range flags.Args() {
		part, err := results.OpenPart(benchPath(path))
		parts, failed = append(parts, part), errors.Join(failed, err)
	}
	if failed != nil {
		fmt.Fprintf(stderr, "compare merge: %v\n", failed)
		return exitInvalid
	}
	f, histograms, err := results.Merge(parts)
	if err != nil {
		fmt.Fprintf(stderr, "compare merge: %v\n", err)
		return exitInvalid
	}
	path, err := store(*out, f, histograms)
	if err != nil {
		fmt.Fprintf(stderr, "compare merge: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stdout, "results: %s\n", path)
	return exitPass
}

// store writes what was merged into a new directory, and returns where.
func store(dir string, f *results.File, histograms []results.Histogram) (string, error) {
	var bench, log bytes.Buffer
	if err := errors.Join(results.Write(&bench, f), results.WriteHistograms(&log, histograms)); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, benchName)
	return path, errors.Join(os.WriteFile(path, bench.Bytes(), 0o644),
		os.WriteFile(results.Beside(path, ".hlog"), log.Bytes(), 0o644))
}
