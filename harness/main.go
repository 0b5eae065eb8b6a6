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
	"syscall"

	"atlas/harness/origin"
	"atlas/harness/subject"
)

// Exit statuses, shared with compare.
const (
	exitPass    = 0
	exitDiffers = 1 // Atlas does not do what its corpus says
	exitUsage   = 2 // or an internal error, or an interruption
	exitInvalid = 3 // a sample was refused
)

const usage = `Harness measures web servers side by side.

usage: harness <verb> [flags]

  run          measure, store the results and print the README's tables
  conformance  send the corpus of HTTP/1 rules through Atlas, nginx and HAProxy, print what they make of it
  list         name the scenarios and the subjects
  doctor       tell the facts of this machine, what is missing and how to get it

"harness run -h" and "harness conformance -h" list the flags.
Exit status: 0 measured, 1 Atlas differs from its corpus, 2 usage or internal error or interrupted,
3 a sample was refused.
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
	case "run":
		return runLab(ctx, stdout, stderr, args)
	case "conformance":
		return checkConformance(ctx, stdout, stderr, args)
	case "list":
		return list(stdout, stderr, args)
	case "doctor":
		return doctor(stdout, stderr, args)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitPass
	case "serve-origin", "serve-peer": // children of `run`
		return serve(ctx, stderr, verb, args)
	}
	fmt.Fprintf(stderr, "harness: unknown verb %q\n\n%s", verb, usage)
	return exitUsage
}

// serve is a child process that `run` starts where it needs a Go server.
func serve(ctx context.Context, stderr io.Writer, verb string, args []string) int {
	flags := flag.NewFlagSet("harness "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "", "`address` to listen on")
	root := flags.String("root", "", "`directory` of the documents")
	upstream := flags.String("upstream", "", "`address` to forward to, instead of serving documents")
	if status, ok := parse(flags, args); !ok {
		return status
	}
	var err error
	if verb == "serve-origin" {
		err = origin.Serve(ctx, *listen, *root)
	} else {
		err = subject.ServePeer(ctx, *listen, *root, *upstream)
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitUsage
	}
	return exitPass
}

// parse reads flags; where it fails or help was asked for, ok is false and
// status is the exit status.
func parse(flags *flag.FlagSet, args []string) (status int, ok bool) {
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitPass, false
	}
	if err != nil {
		return exitUsage, false // flag has said why
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "%s: unexpected argument %q\n", flags.Name(), flags.Arg(0))
		return exitUsage, false
	}
	return 0, true
}
