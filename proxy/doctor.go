package main

import (
	"fmt"

	"atlas/proxy/config"
	"atlas/proxy/doctor"
)

const doctorLong = `
Looks at the machine: kernel, io_uring with each feature that Atlas needs and what could
block it (seccomp, sysctl, security modules), limits of open files and memory, CPUs with
affinity and quota, backlog, ports, conntrack, clock. With CONFIG also whether its
address can be bound, or who has it, and what it asks of all that. Each line is ok, warn
(Atlas runs, and not as well as it could) or fail, with what it costs and how to change
it. Exit status 1 if Atlas cannot run.

With --json: {"ok", "findings"}; of each finding "name", "mark" (ok, warn, fail),
"state", "costs", "fix".
`

func doctorCommand() verb {
	return verb{
		name: "doctor", args: "[CONFIG]", short: "say how well atlas can run on this machine, and what would help",
		long:  doctorLong,
		flags: []flag{{name: "json", short: "for programs: one JSON object on standard output"}},
		run:   examineMachine,
	}
}

func examineMachine(c *call) int {
	var cfg *config.Config
	if len(c.args) > 0 {
		reading, err := readConfig(c.args[0])
		if err != nil {
			fmt.Fprintln(c.stderr, err)
			return exitUsage
		}
		cfg = reading.Config
	}
	report := doctor.Judge(doctor.Read(cfg))
	write := report.WriteText
	if c.has("json") {
		write = report.WriteJSON
	}
	if err := write(c.stdout); err != nil || !report.OK {
		return exitRuntime
	}
	return exitOK
}
