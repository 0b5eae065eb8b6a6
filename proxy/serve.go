package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"atlas/proxy/admin"
	"atlas/proxy/config"
	"atlas/proxy/handover"
	"atlas/proxy/server"
)

func serveCommand() verb {
	return verb{
		args: "[CONFIG]", short: "run CONFIG, or ./atlas.toml",
		run: func(c *call) int {
			reading, ok := load(c.arg(0), c.stderr)
			if !ok {
				return exitUsage
			}
			return serve(reading, c.stderr, nil)
		},
	}
}

// listen has the signals wait for us: the default of most would end the process
// without a word, SIGHUP also when a terminal closes.
func listen() *signals {
	// A log that nobody reads any more is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	s := &signals{
		end: make(chan os.Signal, 2), reload: make(chan os.Signal, 1), upgrade: make(chan os.Signal, 1),
		reopen: make(chan os.Signal, 1),
	}
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.upgrade, syscall.SIGUSR2)
	signal.Notify(s.reopen, syscall.SIGUSR1)
	return s
}

// signals are those that are waited for, by what they ask.
type signals struct{ end, reload, upgrade, reopen chan os.Signal }

// serve runs the configuration until it is told to stop, or another process serves
// in our place. heir is not nil where we take somebody's.
func serve(reading *config.Reading, stderr io.Writer, heir *handover.Heir) int {
	cfg := reading.Config
	lines := startLog(stderr)
	defer lines.end()
	level := new(slog.LevelVar)
	log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: level, ReplaceAttr: inLine}))
	asked := listen()
	program, err := handover.Self()
	if err != nil {
		log.Warn("this process cannot be upgraded: where its program is cannot be told", "error", err)
	}
	if heir == nil {
		if heir, err = handover.Inherit(); err != nil {
			log.Error("cannot take over", "error", err)
			return exitRuntime
		}
	}
	operators, s, err := start(cfg, log, level, lines, heir)
	if err != nil {
		log.Error("cannot start", "config", cfg.File, "error", server.InLine(server.Place(reading.Revealing(), err)))
		if heir != nil {
			heir.Fail(err)
		}
		return exitRuntime
	}
	go func() {
		for range asked.reopen {
			s.Reopen()
		}
	}()
	defer closeAdmin(operators, log) // last: it says that the process drains
	err = s.Follow(func(text []byte) (*config.Reading, error) {
		return config.Read(cfg.File, text, os.LookupEnv)
	}, operators.Prepare)
	if err != nil {
		log.Error("the configuration is not followed", "config", cfg.File, "error", err)
	}
	return newLife(cfg, log, s, operators, program, heir, asked).run()
}

// inLine joins the lines of a value, such as several errors: a line of the log with
// \n in it reads badly.
func inLine(_ []string, a slog.Attr) slog.Attr {
	var text string
	switch v := a.Value.Any().(type) {
	case error:
		text = v.Error()
		if placed := config.Errors(nil); errors.As(v, &placed) {
			text = server.InLine(v)
		}
	case string:
		text = v
	}
	if strings.Contains(text, "\n") || a.Value.Kind() == slog.KindAny && text != "" {
		a.Value = slog.StringValue(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
	}
	return a
}

// start opens what operators and clients connect to.
func start(
	cfg *config.Config, log *slog.Logger, level *slog.LevelVar, lines *logQueue, heir *handover.Heir,
) (*admin.Admin, *server.Server, error) {
	a, err := admin.Start(admin.Options{
		Config:     cfg.Admin,
		Version:    version,
		Log:        log,
		Level:      level,
		LogDropped: lines.lost.Load,
		Takeover:   heir != nil,
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := server.Succeed(cfg, log, inheritance(cfg, log, heir))
	if err != nil {
		closeAdmin(a, log)
		return nil, nil, err
	}
	a.Attach(s)
	return a, s, nil
}

func closeAdmin(a *admin.Admin, log *slog.Logger) {
	if err := a.Close(); err != nil {
		log.Warn("close the admin listener", "error", err)
	}
}
