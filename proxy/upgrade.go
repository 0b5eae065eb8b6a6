package main

import (
	"fmt"

	"atlas/proxy/handover"
)

func upgradeCommand() verb {
	return verb{
		name: "upgrade", args: "[CONFIG]", short: "run CONFIG in the place of the process that runs now",
		long: "The process that runs now goes on until this one serves, and then lets what has begun end.\n" +
			"Should this one not come so far, nothing has happened. Both meet at listen.handover.\n" +
			"This one stays in the foreground and serves, as atlas CONFIG does.\n" +
			"SIGUSR2 has the running process start its own program anew instead.",
		run: upgrade,
	}
}

func upgrade(c *call) int {
	reading, ok := load(c.arg(0), c.stderr)
	if !ok {
		return exitUsage
	}
	if handover.Raised() {
		return serve(reading, c.stderr, nil) // by a process that had been started by this command
	}
	path := handoverPath(reading.Config)
	if path == "" {
		fmt.Fprintln(c.stderr, "atlas: there is no place to meet the process that runs: set listen.handover for both")
		return exitRuntime
	}
	heir, err := handover.Connect(path)
	if err != nil {
		fmt.Fprintf(c.stderr, "atlas: nothing taken over at %s: %v\n", path, err)
		return exitRuntime
	}
	return serve(reading, c.stderr, heir)
}
