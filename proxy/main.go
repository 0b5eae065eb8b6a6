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
	"strings"
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

const usage = `atlas serves files and forwards HTTP requests and TCP connections to upstreams.

  atlas [CONFIG]         run CONFIG, or ./atlas.toml
  atlas check [CONFIG]   say everything that is wrong with it, and exit
  atlas version          print the version
  atlas help             print this

SIGTERM and SIGINT let requests in flight end, then exit; a second one exits at once.
Exit status: 0 ended in order, 1 could not run, 2 wrong command line or configuration.
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	command, file, problem := understand(args)
	if problem != "" {
		fmt.Fprintf(stderr, "atlas: %s\n\n%s", problem, usage)
		return exitUsage
	}
	switch command {
	case "version":
		fmt.Fprintf(stdout, "atlas %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	cfg, ok := load(file, stderr)
	switch {
	case !ok:
		return exitUsage
	case command == "check":
		fmt.Fprintf(stdout, "%s: ok\n", cfg.File)
		if err := server.Unbuilt(cfg); err != nil {
			fmt.Fprintf(stderr, "%s: warning: it will not start yet: %v\n", cfg.File, err)
		}
		return exitOK
	}
	return serve(cfg, stderr)
}

// understand says what the command line asks for. file is "" where none is named.
func understand(args []string) (command, file, problem string) {
	command = "run"
	if len(args) > 0 {
		switch args[0] {
		case "check":
			command, args = "check", args[1:]
		case "version", "-version", "--version", "-v":
			command, args = "version", args[1:]
		case "help":
			return "help", "", ""
		}
	}
	for _, arg := range args {
		switch {
		case arg == "-h" || arg == "-help" || arg == "--help":
			return "help", "", ""
		case len(arg) > 0 && arg[0] == '-':
			return "", "", fmt.Sprintf("unknown flag %q", arg)
		}
	}
	switch {
	case command == "version" && len(args) > 0:
		return "", "", fmt.Sprintf("version takes no argument: what is %q?", args[0])
	case len(args) > 1 && command == "run" && bareWord(args[0]):
		return "", "", fmt.Sprintf("unknown command %q", args[0])
	case len(args) > 1:
		return "", "", fmt.Sprintf("one configuration at a time, not also %q", args[1])
	case len(args) == 1 && args[0] == "":
		return "", "", "the name of the configuration is empty"
	case len(args) == 1:
		file = args[0]
	}
	return command, file, ""
}

// bareWord reports that a name could be meant as a command: it has neither an
// extension nor a folder.
func bareWord(name string) bool { return !strings.ContainsAny(name, "./") }

// load reads the configuration and prints what is wrong with it.
func load(file string, stderr io.Writer) (*config.Config, bool) {
	name := file
	if name == "" {
		name = defaultConfig
	}
	text, err := read(name)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && file == "":
		fmt.Fprintf(stderr, "atlas: there is no %s here: name the configuration, as in: atlas CONFIG\n", name)
	case errors.Is(err, os.ErrNotExist) && bareWord(name):
		fmt.Fprintf(stderr, "atlas: %q is neither a command nor a file: see atlas help\n", name)
	case errors.Is(err, syscall.EISDIR):
		fmt.Fprintf(stderr, "atlas: %s is a directory: name the configuration in it\n", name)
	default:
		fmt.Fprintf(stderr, "atlas: %v\n", err)
	}
	if err != nil {
		return nil, false
	}
	cfg, warnings, err := config.Parse(name, text)
	for i := range warnings {
		fmt.Fprintf(stderr, "%s\n", warnings[i].String())
	}
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
		return nil, false
	}
	return cfg, true
}

// readMax is more than Parse takes: a device or a disk image that is named by
// mistake must not fill the memory.
const readMax = 2 << 20

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, readMax))
}

// serve runs the configuration until it is told to stop.
func serve(cfg *config.Config, stderr io.Writer) int {
	lines := startLog(stderr)
	defer lines.end()
	log := slog.New(slog.NewTextHandler(lines, nil))
	// A log that nobody reads any more is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	// The default would end the process without a word, also when a terminal closes.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			log.Warn("SIGHUP ignored: reload is not built yet, restart to apply a changed configuration")
		}
	}()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	s, err := server.Start(cfg, log)
	if err != nil {
		log.Error("cannot start", "config", cfg.File, "error", err)
		return exitRuntime
	}
	got := <-signals
	log.Info("draining", "signal", got.String(), "within", cfg.Timeouts.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeouts.Drain)
	defer cancel()
	go func() {
		<-signals
		signal.Stop(signals) // should even this take too long, a third one kills
		cancel()
	}()
	if clean := s.Shutdown(ctx); !clean {
		log.Warn("cut what had not ended in time")
	}
	log.Info("ended")
	return exitOK
}
