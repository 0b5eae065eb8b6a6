// Command atlas is a load balancer, reverse proxy and static file server.
//
// It reads its configuration, runs it until a signal, and does nothing else:
// everything it can do is in the packages below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"atlas/proxy/config"
	"atlas/proxy/server"
)

// version is set by the linker.
var version = "unknown"

// Exit status.
const (
	exitOK      = 0
	exitRuntime = 1 // it was fine and could not run, or not go on
	exitUsage   = 2 // the command line or the configuration is wrong
)

// defaultConfig is read where no file is named.
const defaultConfig = "atlas.toml"

const usage = `atlas serves files and forwards HTTP requests to upstreams.

  atlas [CONFIG]         run CONFIG, or ./atlas.toml
  atlas check [CONFIG]   say everything that is wrong with it, and exit
  atlas version          print the version
  atlas help             print this

SIGTERM and SIGINT let requests in flight end, then exit; a second one exits at once.
Exit status: 0 ended in order, 1 could not run, 2 wrong command line or configuration.
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	command, file := "run", ""
	if len(args) > 0 {
		switch args[0] {
		case "check", "version", "help", "-h", "-help", "--help", "-version", "--version":
			command, args = args[0], args[1:]
		}
	}
	if len(args) > 0 {
		file, args = args[0], args[1:]
	}
	if len(args) > 0 || len(file) > 0 && file[0] == '-' {
		fmt.Fprintf(stderr, "atlas: what is %q?\n\n%s", append([]string{file}, args...), usage)
		return exitUsage
	}
	switch command {
	case "version", "-version", "--version":
		fmt.Fprintf(stdout, "atlas %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if file == "" {
		file = defaultConfig
	}
	cfg, ok := load(file, stderr)
	switch {
	case !ok:
		return exitUsage
	case command == "check":
		fmt.Fprintf(stdout, "%s: ok\n", file)
		return exitOK
	}
	return serve(cfg, stderr)
}

// load reads the configuration and prints what is wrong with it.
func load(file string, stderr io.Writer) (*config.Config, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintf(stderr, "atlas: %v\n", err)
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(stderr, "name the configuration: atlas CONFIG.toml")
		}
		return nil, false
	}
	cfg, warnings, err := config.Parse(file, text)
	for i := range warnings {
		fmt.Fprintf(stderr, "%s\n", warnings[i].String())
	}
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
		return nil, false
	}
	return cfg, true
}

// serve runs the configuration until it is told to stop.
func serve(cfg *config.Config, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	s, err := server.Start(cfg, log)
	if err != nil {
		log.Error("cannot start", "config", cfg.File, "error", err)
		return exitRuntime
	}
	got := <-signals
	log.Info("draining", "signal", got.String(), "at most", cfg.Timeouts.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeouts.Drain)
	defer cancel()
	go func() {
		<-signals
		cancel()
	}()
	if clean := s.Shutdown(ctx); !clean {
		log.Warn("cut what had not ended in time")
	}
	log.Info("ended")
	return exitOK
}
