package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"atlas/proxy/handover"
)

// heirRole is a program that begins to take a process's place and does not live to
// have it. ATLAS_HEIR says how far it comes.
func heirRole() {
	heir, err := handover.Inherit()
	if err != nil || heir == nil {
		fmt.Fprintln(os.Stderr, "nothing to inherit:", err)
		os.Exit(9)
	}
	stage := os.Getenv("ATLAS_HEIR")
	defer func() { panic("the heir is ill, " + stage) }()
	if stage == "given" {
		return
	}
	if strings.HasPrefix(stage, "hanging") {
		time.Sleep(time.Hour)
	}
	if err := heir.Loaded(); err != nil {
		panic(err)
	}
	if stage == "loaded" {
		return
	}
	var names []string
	for _, s := range heir.Legacy.Sockets {
		names = append(names, s.Name)
	}
	if err := heir.Serving(names); err != nil {
		panic(err)
	}
}
