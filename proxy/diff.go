package main

import (
	"fmt"

	"atlas/proxy/config"
)

// exitDiffers is what diff(1) has for it.
const exitDiffers = 1

func diffCommand() verb {
	return verb{
		name: "diff", args: "OLD NEW", short: "say what a reload from OLD to NEW would change",
		long: "Each line is a key with its old and its new value, and what the change takes: open\n" +
			"connections have what is live from their next request, and keep the rest; what needs\n" +
			"an upgrade has a reload refused.\n" +
			"Exit status: 0 no difference, 1 there are some, 2 one of them is wrong.\n",
		run: func(c *call) int {
			var both [2]*config.Reading
			for i := range both {
				var err error
				if both[i], err = readConfig(c.arg(i)); err != nil {
					fmt.Fprintln(c.stderr, err)
					return exitUsage
				}
			}
			changes := config.Diff(both[0].Config, both[1].Config)
			both[0].Hide(changes)
			both[1].Hide(changes)
			for _, change := range changes {
				fmt.Fprintf(c.stdout, "%s [%s]\n", change, change.Reload)
			}
			if len(changes) > 0 {
				return exitDiffers
			}
			return exitOK
		},
	}
}
