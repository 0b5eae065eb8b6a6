package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"atlas/proxy/admin"
	"atlas/proxy/config"
	"atlas/proxy/handover"
	"atlas/proxy/server"
)

// life is the process from when it serves until it ends. It is one goroutine's.
type life struct {
	log     *slog.Logger
	config  *config.Config
	server  *server.Server
	admin   *admin.Admin
	asked   *signals
	program handover.Program

	heir  *handover.Heir // of somebody, not yet for good
	mine  chan error     // how that became
	giver *handover.Giver
	place *handover.Place // where others may ask for ours
	given chan bequest    // what became of that

	talks   context.Context // with others; it ends when the process begins to
	silence context.CancelFunc
	raising bool // a new process has been started and does not serve yet
	wanted  bool // an upgrade, as soon as this process is there for good
}

// bequest is how a talk with a process that wants our place ended.
type bequest struct {
	pid    int
	err    error // nil: it has it
	raised bool  // we started it
}

func newLife(
	cfg *config.Config, log *slog.Logger, s *server.Server, operators *admin.Admin,
	program handover.Program, heir *handover.Heir, asked *signals,
) *life {
	l := &life{
		log: log, config: cfg, server: s, admin: operators, asked: asked, program: program,
		heir: heir, mine: make(chan error, 1), given: make(chan bequest, 8),
	}
	l.talks, l.silence = context.WithCancel(context.Background())
	l.giver = handover.NewGiver(handover.Config{
		Patience: cfg.Timeouts.Upgrade,
		Legacy:   s.Legacy,
		Pause:    s.Yield,
		Resume:   s.Resume,
	})
	return l
}

// run returns the exit status.
func (l *life) run() int {
	if l.heir == nil {
		l.settle()
	} else if err := l.heir.Serving(l.server.Doors()); err != nil {
		return l.giveUp(err)
	} else {
		go func() { l.mine <- l.heir.Mine() }()
	}
	for {
		select {
		case got := <-l.asked.end:
			return l.end(got.String())
		case <-l.asked.reload:
			go l.reload()
		case <-l.asked.upgrade:
			l.upgrade()
		case err := <-l.mine:
			if err != nil {
				return l.giveUp(err)
			}
			l.takeOver()
		case b := <-l.given:
			if l.bequeath(b) {
				return l.drain("heir", fmt.Sprint(b.pid))
			}
		}
	}
}

// settle begins to be there for good: others may ask for our place.
func (l *life) settle() {
	before := 0
	if l.heir != nil {
		before = l.heir.Before
		l.heir = nil
	}
	l.openPlace(before)
	if err := l.admin.Claim(); err != nil {
		l.log.Error("the admin listener is not there", "error", err)
	}
	if before != 0 { // said when the next one finds us
		l.log.Info("took over", "from", before)
	}
	l.notifyReady()
	if l.wanted {
		l.wanted = false
		l.upgrade()
	}
}

func (l *life) openPlace(before int) {
	path := handoverPath(l.config)
	if path == "" {
		return
	}
	place, err := handover.Open(path, before)
	if err != nil {
		l.log.Warn("atlas upgrade will not find this process; SIGUSR2 upgrades it all the same", "error", err)
		return
	}
	l.place = place
	place.Serve(l.giver, func(pid int, err error) { l.given <- bequest{pid: pid, err: err} })
}

// handoverPath is where processes meet; "" is nowhere.
func handoverPath(cfg *config.Config) string {
	switch path := cfg.Listen.Handover; path {
	case config.HandoverOff:
		return ""
	case "":
		return handover.DefaultPath()
	default:
		return path
	}
}

// reload reads the configuration again. What becomes of it is logged.
func (l *life) reload() {
	l.notifyReloading()
	_ = l.server.Reload("SIGHUP")
	l.notifyReloaded()
}

// takeOver is called when the process whose place we take lets go of it.
func (l *life) takeOver() {
	if err := l.heir.KeepStderr(); err != nil {
		l.log.Warn("standard error stays with the process before this one", "error", err)
	}
	l.server.Alone()
	l.server.TookOver(l.heir.Before)
	l.settle()
}

// giveUp ends a process that was to take another one's place and is not to any more:
// that one goes on.
func (l *life) giveUp(why error) int {
	l.log.Error("cannot take over: the process before this one goes on", "error", why)
	l.cut()
	return exitRuntime
}

// upgrade starts the program anew, to take our place.
func (l *life) upgrade() {
	switch {
	case l.heir != nil:
		l.wanted = true
	case l.raising:
		l.log.Warn("SIGUSR2 ignored: an upgrade is under way")
	case l.program.Path == "":
		l.stay(bequest{err: errors.New("where the program is cannot be told")})
	case os.Getpid() == 1:
		// Its container would end with it.
		l.stay(bequest{err: errors.New("process 1 cannot be upgraded: start a new container instead")})
	default:
		l.raising = true
		l.log.Info("upgrading", "program", l.program.Path, "within", l.config.Timeouts.Upgrade)
		go func() {
			pid, err := l.giver.Raise(l.talks, l.program, os.Stderr)
			l.given <- bequest{pid, err, true}
		}()
	}
}

// bequeath reports that another process serves in our place.
func (l *life) bequeath(b bequest) bool {
	if b.raised {
		l.raising = false
	}
	if b.err == nil {
		return true
	}
	if errors.Is(b.err, handover.ErrNothing) && !b.raised {
		return false
	}
	if !errors.Is(b.err, handover.ErrBusy) {
		l.server.Stay()
	}
	l.stay(b)
	return false
}

// stay says why this process goes on.
func (l *life) stay(b bequest) {
	fields := []any{"error", b.err}
	if b.pid != 0 {
		fields = append(fields, "process", b.pid)
	}
	crash := new(handover.Crash)
	if errors.As(b.err, &crash) {
		fields = append(fields, "ended", crash.Status, "printed", crash.Stderr)
	}
	l.server.NotUpgraded(b.err, crash.Status, crash.Stderr)
	message := "no upgrade: this process goes on"
	if b.raised {
		message += "; put that right and send SIGUSR2 again"
	}
	l.log.Error(message, fields...)
}

// end is what a signal asks for. Readiness fails first, and everything goes on for a
// while, so that nobody is sent here any more when clients are turned away.
func (l *life) end(why string) int {
	if l.heir != nil {
		l.heir.Close() // the process before this one may go on
	}
	l.server.Unready()
	l.notifyStopping()
	if delay := l.server.Config().Timeouts.DrainDelay; delay > 0 {
		l.log.Info("about to drain", "signal", why, "in", delay)
		select {
		case <-time.After(delay):
		case <-l.asked.end:
			signal.Stop(l.asked.end)
			l.hush()
			l.cut()
			l.log.Warn("cut what had not ended in time")
			l.log.Info("ended")
			return exitOK
		}
	}
	if pid := l.hush(); pid != 0 {
		return l.drain("heir", fmt.Sprint(pid))
	}
	return l.drain("signal", why)
}

// hush ends all talks about our place. One that had come so far that another process
// serves there is no longer ours to end.
func (l *life) hush() (pid int) {
	l.silence()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if l.place != nil {
			l.place.Close()
		}
	}()
	for over := false; !over || l.raising; {
		select {
		case <-done:
			over, done = true, nil
		case b := <-l.given:
			if l.bequeath(b) {
				pid = b.pid
			}
		}
	}
	for len(l.given) > 0 {
		if b := <-l.given; l.bequeath(b) {
			pid = b.pid
		}
	}
	return pid
}

// drain lets what has begun end.
func (l *life) drain(reason, value string) int {
	within := l.server.Config().Timeouts.Drain
	l.log.Info("draining", reason, value, "within", within)
	if reason != "signal" {
		l.notifyHeir(value)
		if err := l.admin.Leave(); err != nil {
			l.log.Warn("close the admin listener", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	go func() {
		select {
		case <-l.asked.end:
			signal.Stop(l.asked.end) // should even this take too long, a further one kills
			cancel()
		case <-ctx.Done():
		}
	}()
	l.hush()
	if clean := l.server.Shutdown(ctx); !clean {
		l.log.Warn("cut what had not ended in time")
	}
	l.log.Info("ended")
	return exitOK
}

// cut ends everything now.
func (l *life) cut() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.server.Shutdown(ctx)
}
