package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"atlas/proxy/config"
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
		fmt.Fprintf(c.stderr, "atlas: nothing taken over: %s\n", nowhere(reading.Config))
		return exitRuntime
	}
	heir, err := handover.Connect(path)
	if err != nil {
		fmt.Fprintf(c.stderr, "atlas: nothing taken over at %s: %s\n", path, unmet(path, err))
		return exitRuntime
	}
	return serve(reading, c.stderr, heir)
}

// nowhere says why there is no socket where processes meet, and what to do.
func nowhere(cfg *config.Config) string {
	const fix = "set listen.handover to the path of a socket, and restart the process that runs with it"
	if cfg.Listen.Handover == config.HandoverOff {
		return fmt.Sprintf("listen.handover is %q in %s: %s", config.HandoverOff, cfg.File, fix)
	}
	return "no socket is named where the process that runs could be met, and neither $RUNTIME_DIRECTORY nor " +
		fmt.Sprintf("/run/user/%d is there: %s; or send it SIGUSR2", os.Geteuid(), fix)
}

// unmet says why nobody handed over at a path, and what to do.
func unmet(path string, err error) string {
	var no *handover.Refusal
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("no Atlas waits there (%v): start one with atlas CONFIG, "+
			"or set listen.handover to where it waits; one that runs can be sent SIGUSR2", cause(err))
	case errors.Is(err, os.ErrPermission):
		return fmt.Sprintf("%v: run this as the user of the Atlas that waits there", cause(err))
	case errors.As(err, &no):
		return fmt.Sprintf("the process there %s", strings.TrimPrefix(err.Error(), "it "))
	case errors.Is(err, io.EOF):
		return "who listens there hung up: its log says why, if it is Atlas"
	}
	return err.Error()
}

// cause is the innermost error, without what was dialled.
func cause(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
