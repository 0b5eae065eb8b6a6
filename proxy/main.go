// Command atlas is a load balancer, reverse proxy and static file server.
//
// It is a table of commands, each in a file of its own; the one without a name
// reads its configuration and runs it until a signal. Nothing else happens here:
// everything it can do is in the packages below.
package main

import (
	"fmt"
	"io"
	"os"
)

// version is set by the linker.
var version = "unknown"

// Exit status.
const (
	exitOK      = 0
	exitRuntime = 1 // it was fine and could not run, or not go on
	exitUsage   = 2 // the command line or the configuration is wrong
)

// commands are all there are, in the order of the usage.
func commands() []verb {
	return []verb{
		serveCommand(),
		readyCommand(),
		upgradeCommand(),
		checkCommand(),
		diffCommand(),
		doctorCommand(),
		schemaCommand(),
		versionCommand(),
		helpCommand(),
	}
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	c, problem := understand(args)
	out := &output{to: stdout}
	c.stdout, c.stderr = out, stderr
	switch {
	case problem != "" && c.brief:
		fmt.Fprintf(stderr, "atlas: %s\n", problem)
		return exitUsage
	case problem != "":
		fmt.Fprintf(stderr, "atlas: %s\n\n%s", problem, c.command.help())
		return exitUsage
	case c.has("help"):
		fmt.Fprint(c.stdout, c.command.help())
		return out.status(exitOK, stderr)
	}
	return out.status(c.command.run(c), stderr)
}

// output is the standard output of a command. What a command prints is all it does:
// a script that keeps it in a file must not go on with half of it.
type output struct {
	to  io.Writer
	err error // the first
}

// Write hands over, until that fails.
func (o *output) Write(b []byte) (n int, err error) {
	if o.err != nil {
		return 0, o.err
	}
	n, o.err = o.to.Write(b)
	return n, o.err
}

// status is what a command that would end so ends with.
func (o *output) status(status int, stderr io.Writer) int {
	if o.err == nil {
		return status
	}
	fmt.Fprintf(stderr, "atlas: %v\n", o.err)
	return max(status, exitRuntime)
}
