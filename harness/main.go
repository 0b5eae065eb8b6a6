// Harness is the measuring half of the lab: it starts servers one at a time,
// loads them in interleaved rounds and writes results in Go benchmark format.
// It refuses to judge (compare does), to store a sample with errors in it, and
// to leave anything running. It also sends the corpus of HTTP/1 rules through
// them, and says what becomes of it. Everything happens on the main goroutine
// but the load itself, and the corpus's conversations.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/harness/subject"
)

// Exit statuses, shared with compare.
const (
	exitPass    = 0
	exitDiffers = 1 // Atlas does not do what its corpus says, or costs more than its base
	exitUsage   = 2 // or an internal error, or an interruption
	exitInvalid = 3 // a sample was refused, or the measurement itself moved
)

const usage = `Harness measures web servers side by side.

usage: harness <verb> [flags]

  run          measure, store the results and print the README's tables
  count        count the system calls of a request, and how many of them enter an io_uring; needs root
  gate         say whether the tree costs more CPU per request than its base
  selftest     say whether the gate passes what is the same and fails what was slowed down
  calibrate    tell what the gate can see on this machine
  conformance  send the corpus of HTTP/1 rules through Atlas, nginx and HAProxy, print what they make of it
  up, down     start origin, nginx, HAProxy and Atlas of docker-compose.yml to look at; stop them
  probe        ask a URL for a 200, for health checks in containers
  list         name the scenarios and the subjects
  documents    write what the scenarios ask for, for a server that -url names to serve
  doctor       tell the facts of this machine, what is missing and how to get it

"harness run -h", and so for the others, lists the flags.
Exit status: 0 measured or pass, 1 regression, or Atlas differs from its corpus, 2 usage or internal error
or interrupted, 3 a sample was refused or the measurement is invalid, 4 inconclusive.
`

func main() {
	os.Exit(run(os.Stdout, os.Stderr, os.Args[1:]))
}

// run is the program: it returns the exit status.
func run(stdout, stderr io.Writer, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verb, args := args[0], args[1:]
	switch verb {
	case "run", verbCount:
		return runLab(ctx, stdout, stderr, verb, args)
	case "gate":
		return runGate(ctx, stdout, stderr, args)
	case "selftest":
		return selftest(ctx, stdout, stderr, args)
	case "calibrate":
		return calibrate(ctx, stdout, stderr, args)
	case "conformance":
		return checkConformance(ctx, stdout, stderr, args)
	case "list":
		return list(stdout, stderr, args)
	case "documents":
		return writeDocuments(stdout, stderr, args)
	case "doctor":
		return doctor(stdout, stderr, args)
	case "help", "-h", "-help", "--help":
		if len(args) > 0 && slices.Contains(verbs(), args[0]) {
			return run(stdout, stderr, []string{args[0], "-h"})
		}
		fmt.Fprint(stdout, usage)
		return exitPass
	case "up", "down":
		return composeStack(ctx, stdout, stderr, verb, args)
	case "probe":
		return probe(ctx, stderr, args)
	case "report", "meter": // on another host, for `run`
		return answerHost(os.Stdin, stdout, stderr, verb, args)
	case "serve-origin", "serve-peer": // children of `run`; docs/lab.md has the first as well
		return serve(ctx, stderr, verb, args)
	case attack.VerbGreedy: // as well
		return beGreedy(ctx, stdout, stderr, args)
	}
	fmt.Fprintf(stderr, "harness: unknown verb %q\n\n%s", verb, usage)
	return exitUsage
}

// verbs are those that the usage names.
func verbs() (names []string) {
	for line := range strings.Lines(usage) {
		before, _, named := strings.Cut(strings.TrimPrefix(line, "  "), "  ") // up, down
		if named && strings.HasPrefix(line, "  ") {
			names = append(names, strings.Split(before, ", ")...)
		}
	}
	return names
}

// serve is a child process that `run` starts where it needs a Go server.
func serve(ctx context.Context, stderr io.Writer, verb string, args []string) int {
	flags := flag.NewFlagSet("harness "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p subject.Peer
	flags.StringVar(&p.Address, "listen", "", "`address` to listen on")
	flags.StringVar(&p.Root, "root", "", "`directory` of the documents")
	flags.StringVar(&p.Upstream, "upstream", "", "`address` to forward requests to, instead of serving documents")
	flags.StringVar(&p.Tunnel, "tunnel", "", "`address` to forward bytes to, instead")
	delay := flags.Duration("delay", 0, "`time` to wait before each answer of an origin")
	flags.StringVar(&p.Cert, "cert", "", "`file` of the certificate to serve TLS with")
	flags.StringVar(&p.Key, "key", "", "`file` of its private key")
	if status, ok := parse(flags, args); !ok {
		return status
	}
	var err error
	if verb == "serve-origin" {
		var pause func()
		if *delay > 0 { // not time.Sleep, which may take a millisecond more
			pause = host.Pause(*delay)
		}
		// Who sends without end must not keep others from being looked at.
		runtime.GOMAXPROCS(max(procs, runtime.GOMAXPROCS(0)))
		err = origin.Serve(ctx, p.Address, p.Root, pause)
	} else {
		err = p.Serve(ctx)
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitUsage
	}
	return exitPass
}

// beGreedy is a child process that `run` starts where a scenario has a greedy client.
func beGreedy(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	client, err := attack.ParseGreedy(stderr, args)
	if err == nil {
		err = client.Run(ctx, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", attack.VerbGreedy, err)
		return exitUsage
	}
	return exitPass
}

// parse reads flags; where it fails or help was asked for, ok is false and
// status is the exit status.
func parse(flags *flag.FlagSet, args []string) (status int, ok bool) {
	// Package flag prints every flag behind its error, which goes off the screen.
	out := flags.Output()
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	flags.SetOutput(out)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(out, "Usage of %s:\n", flags.Name())
		none := true
		flags.VisitAll(func(*flag.Flag) { none = false })
		if none {
			fmt.Fprintln(out, "  it takes no flags")
		}
		flags.PrintDefaults()
		return exitPass, false
	}
	if err != nil {
		fmt.Fprintf(out, "%s: %v; %s -h lists the flags\n", flags.Name(), err, flags.Name())
		return exitUsage, false
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "%s: unexpected argument %q\n", flags.Name(), flags.Arg(0))
		return exitUsage, false
	}
	return 0, true
}
