package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"atlas/compare/report"
	"atlas/results"
)

// reportName is the page's file beside the results, where nothing else is said.
const reportName = "report.html"

// writeReport is the verb `report`.
func writeReport(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "report")
	out := flags.String("o", "", "`file` to write (default: "+reportName+" beside the results)")
	if status, ok := parse(flags, args, 1); !ok {
		return status
	}
	path := benchPath(flags.Arg(0))
	if *out == "" {
		*out = filepath.Join(filepath.Dir(path), reportName)
	}
	run, err := report.OpenRun(path)
	if err != nil {
		fmt.Fprintf(stderr, "compare report: %v\n", err)
		return exitInvalid
	}
	published, err := results.LoadPublished()
	if err != nil {
		fmt.Fprintf(stderr, "compare report: %v\n", err)
		return exitInvalid
	}
	var page bytes.Buffer
	if err := report.Page(&page, run, published, false); err != nil {
		fmt.Fprintf(stderr, "compare report: %v\n", err)
		return exitInvalid
	}
	if err := os.WriteFile(*out, page.Bytes(), 0o644); err != nil {
		fmt.Fprintf(stderr, "compare report: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stdout, "report: %s\n", *out)
	return exitPass
}
