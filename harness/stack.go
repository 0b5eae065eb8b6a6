package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"atlas/harness/subject"
)

// stackDir holds the configurations and documents of `up`, which the containers see.
const stackDir = "bin/lab"

// composeStack is the verbs `up` and `down`.
func composeStack(ctx context.Context, stdout, stderr io.Writer, verb string, args []string) int {
	flags := flag.NewFlagSet("harness "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	if status, ok := parse(flags, args); !ok {
		return status
	}
	err := runStack(ctx, stdout, stderr, verb)
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitUsage
	}
	return exitPass
}

func runStack(ctx context.Context, stdout, stderr io.Writer, verb string) error {
	compose, err := subject.NewCompose(subject.Engine{})
	if err != nil {
		return err
	}
	if verb == "down" {
		return compose.Down(absolute(stackDir))
	}
	fmt.Fprintln(stderr, "starting origin, nginx, haproxy and atlas; a few seconds")
	urls, err := compose.Up(ctx, absolute(stackDir))
	if err != nil {
		return err
	}
	for _, one := range urls {
		fmt.Fprintf(stdout, "%-8s %s\n", one[0], one[1])
	}
	fmt.Fprintf(stdout, "configurations: %s; `make down` stops them\n", stackDir)
	return nil
}

// probeTimeout is shorter than that of the health check.
const probeTimeout = 4 * time.Second

const probeUsage = "usage: harness probe URL"

// probe is the verb of that name: images without a shell have it mounted.
func probe(ctx context.Context, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, probeUsage)
		return exitPass
	}
	if err != nil || flags.NArg() != 1 {
		fmt.Fprintln(stderr, probeUsage)
		return exitUsage
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		fmt.Fprintf(stderr, "harness probe: %v\n", err)
		return exitUsage
	}
	client := http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		fmt.Fprintf(stderr, "harness probe: %v\n", err)
		return exitInvalid
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		fmt.Fprintf(stderr, "harness probe: %s: %s\n", args[0], response.Status)
		return exitInvalid
	}
	return exitPass
}
