package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/watch"
)

// Parser reads the text of a configuration.
type Parser func(text []byte) (*config.Reading, error)

// ReloadStatus says what became of the configuration so far.
type ReloadStatus struct {
	File   string    // of the configuration that is active
	Sum    string    // SHA-256 of its text, in hexadecimal; "" before Follow
	Active time.Time // since when it is

	// The last reload: when it was, what asked for it, and why it was none.
	// No time: there was none yet.
	Last    time.Time
	Why     string
	Errors  []string        // each with the place in the file, where there is one
	Changes []config.Change // of the last one that was applied

	Applied, Failed uint64 // reloads so far

	Reading *config.Reading // of what is active; nil: what it was read from is not known
}

// Beside prepares what has a place in the configuration and is not the server's.
// take has it used from now on; drop leaves everything as it was.
type Beside func(cfg *config.Config) (take, drop func(), err error)

// reloader is the goroutine that changes the configuration, and nobody else does: it
// follows the file, and the files of certificates.
type reloader struct {
	server *Server
	files  *watch.Files
	orders chan order
	cancel context.CancelFunc
	done   chan struct{}

	file   string // "": not followed
	parse  Parser
	beside Beside
	active *config.Reading // nil: it is not known what it was read from
	seen   string          // sum of what was last looked at
	retry  bool            // it could not be applied, which may be for what is beside it

	mu     sync.Mutex
	status ReloadStatus
}

// order is something to do for the reloader.
type order struct {
	do   func(ctx context.Context) error
	done chan error
}

func startReloader(s *Server) *reloader {
	ctx, cancel := context.WithCancel(context.Background())
	files, err := watch.Start()
	if err != nil {
		s.log.Warn("files are looked at once a minute only", "error", err)
	}
	r := &reloader{
		server: s, files: files, orders: make(chan order), cancel: cancel, done: make(chan struct{}), beside: nothing,
	}
	r.status.File, r.status.Active = s.Config().File, time.Now()
	r.watch()
	go r.run(ctx)
	return r
}

// nothing is Beside a server that is alone.
func nothing(*config.Config) (take, drop func(), err error) { return func() {}, func() {}, nil }

// stop ends it, and what it has begun.
func (r *reloader) stop() {
	r.cancel()
	<-r.done
}

func (r *reloader) run(ctx context.Context) {
	defer close(r.done)
	defer r.files.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-r.orders:
			o.done <- o.do(ctx)
		case <-r.files.C:
			if r.file != "" {
				_ = r.look(ctx, "file", false) // it was logged
			}
			if secure := r.server.now.Load().secure; secure != nil {
				secure.look(time.Now())
			}
			r.lookTrust(ctx)
		}
	}
}

// lookTrust applies the configuration anew where upstreams have other authorities
// now: connections that were trusted under the old ones carry no new request then.
func (r *reloader) lookTrust(ctx context.Context) {
	now := r.server.now.Load()
	if _, changed, _ := now.trust.read(); !changed {
		return
	}
	_ = r.reload(ctx, now.config, r.active, r.now().Sum, "authorities of upstreams") // it is logged
}

// ask has the reloader do something, and waits for it.
func (r *reloader) ask(do func(ctx context.Context) error) error {
	o := order{do, make(chan error, 1)}
	select {
	case r.orders <- o:
		return <-o.done
	case <-r.done:
		return errors.New("the server is ending")
	}
}

// watch watches all files that there are now.
func (r *reloader) watch() {
	var files []string
	if r.file != "" {
		files = append(files, r.file)
	}
	if secure := r.server.now.Load().secure; secure != nil {
		files = append(files, secure.files()...)
	}
	files = append(files, r.server.now.Load().trust.files...)
	r.files.Set(files)
}

// Follow watches the file of the configuration from now on, and applies what is new
// in it, all of it or nothing: to the server, and to what is beside it, which may be
// nil.
func (s *Server) Follow(parse Parser, beside Beside) error {
	r := s.reloader
	return r.ask(func(ctx context.Context) error {
		r.file, r.parse = s.Config().File, parse
		if beside != nil {
			r.beside = beside
		}
		r.watch()
		// It may have changed since it was read.
		text, err := readRegular(r.file)
		if err == nil {
			if reading, err := parse(text); err == nil && len(config.Diff(s.Config(), reading.Config)) == 0 {
				r.seen, r.active = sumOf(text), reading
				r.note(func(status *ReloadStatus) { status.Sum, status.Reading = r.seen, reading })
				return nil
			}
		}
		_ = r.look(ctx, "file", false) // it is logged
		return nil
	})
}

// Reload reads the configuration and applies it, be it new or not: files that it
// names may be others. why says who asks. Any goroutine; it waits.
func (s *Server) Reload(why string) error {
	return s.reloader.ask(func(ctx context.Context) error { return s.reloader.look(ctx, why, true) })
}

// Reloads says what became of the configuration so far. Any goroutine.
func (s *Server) Reloads() ReloadStatus { return s.reloader.now() }

func (r *reloader) now() ReloadStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *reloader) note(f func(*ReloadStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.status)
}

// look applies what is in the file, if that is new or whoever asks insists.
func (r *reloader) look(ctx context.Context, why string, insists bool) error {
	if r.file == "" {
		return errors.New("no file is followed")
	}
	text, err := readRegular(r.file)
	seen := sumOf(text)
	if err != nil {
		seen = err.Error()
	}
	if seen == r.seen && !insists && !r.retry {
		return nil
	}
	if seen != r.seen || insists {
		r.retry = false
	}
	r.seen = seen
	var reading *config.Reading
	if err == nil {
		reading, err = r.parse(text)
	}
	if err != nil {
		return r.fail(err, why)
	}
	for _, w := range reading.Warnings {
		r.server.log.Warn("configuration", "at", place(w.File, w.Line, w.Column), "warning", w.Message)
	}
	return r.reload(ctx, reading.Config, reading, seen, why)
}

// reload applies a configuration, all of it or nothing. reading is what it was read
// from, nil where that is not known.
func (r *reloader) reload(
	ctx context.Context, cfg *config.Config, reading *config.Reading, sum, why string,
) error {
	s := r.server
	old := s.now.Load()
	changes := config.Diff(old.config, cfg)
	for _, known := range []*config.Reading{r.active, reading} {
		if known != nil {
			known.Hide(changes)
		}
	}
	if err := refused(reading, changes); err != nil {
		return r.fail(err, why)
	}
	if s.leaving.Load() {
		defer func() { r.retry = true }() // should that one not come so far
		return r.fail(errors.New("another process is taking over, with a configuration of its own"), why)
	}
	next, take, err := r.prepare(ctx, cfg)
	if err != nil {
		defer func() { r.retry = true }()
		return r.fail(Place(reading, err), why)
	}
	if err := s.apply(next); err != nil {
		return r.fail(err, why)
	}
	take()
	r.retry, r.active = false, reading
	r.settle(ctx, old, next)
	r.note(func(status *ReloadStatus) {
		now := time.Now()
		status.File, status.Sum, status.Active = cfg.File, sum, now
		status.Last, status.Why, status.Errors, status.Changes = now, why, nil, changes
		status.Reading = reading
		status.Applied++
	})
	s.log.Info("configuration reloaded", "config", cfg.File, "sum", sum[:min(12, len(sum))], "why", why,
		"changed", listed(changes))
	return nil
}

// prepare opens all that a configuration names, with nothing left open where that
// fails. take is for what is beside the server.
func (r *reloader) prepare(ctx context.Context, cfg *config.Config) (next *setup, take func(), err error) {
	s := r.server
	if next, err = s.build(ctx, cfg); err != nil {
		return nil, nil, err
	}
	if err := s.open(next); err != nil {
		return nil, nil, errors.Join(err, next.release())
	}
	take, drop, err := r.beside(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, next.release(), s.abandon(next))
	}
	if ctx.Err() != nil { // the server ends
		drop()
		return nil, nil, errors.Join(ctx.Err(), next.release(), s.abandon(next))
	}
	return next, take, nil
}

// settle is what follows a reload: the old door closes, the new files are watched.
func (r *reloader) settle(ctx context.Context, old, next *setup) {
	s := r.server
	switch {
	case old.door != next.door:
		s.shut(ctx, old.door)
	case old.config.Listen.Backlog != next.config.Listen.Backlog:
		for _, ln := range next.door.all() {
			if err := ln.SetBacklog(next.config.Listen.Backlog); err != nil {
				s.log.Warn("change the backlog", "error", err)
			}
		}
	}
	r.watch()
}

// fail notes and logs why what was active stays.
func (r *reloader) fail(err error, why string) error {
	problems := split(err)
	if r.retry && slices.Equal(problems, r.now().Errors) {
		return err // that was told
	}
	r.note(func(status *ReloadStatus) {
		status.Last, status.Why, status.Errors = time.Now(), why, problems
		status.Failed++
	})
	r.server.log.Error("configuration not reloaded: what was active stays", "config", r.server.Config().File,
		"why", why, "errors", strings.Join(problems, "; "))
	return err
}

// upgradeHint is what to do about them.
const upgradeHint = "atlas upgrade FILE, or SIGUSR2, has a new process take over with it; " +
	"until then nothing of the file is applied"

// refused says which keys a process cannot change while it runs.
func refused(reading *config.Reading, changes []config.Change) error {
	var keys []string
	var placed config.Errors
	for _, c := range changes {
		if c.Reload != config.NeedsUpgrade {
			continue
		}
		keys = append(keys, c.String())
		if p := reading.Problem(c.Key, "needs an upgrade: "+c.String(), upgradeHint); p != nil {
			placed = append(placed, *p)
		}
	}
	if placed != nil {
		return placed
	}
	if keys == nil {
		return nil
	}
	return fmt.Errorf("needs an upgrade: %s; %s", strings.Join(keys, ", "), upgradeHint)
}

// listed is all changes in one line.
func listed(changes []config.Change) string {
	if len(changes) == 0 {
		return "nothing"
	}
	texts := make([]string, len(changes))
	for i, c := range changes {
		texts[i] = fmt.Sprintf("%s [%s]", c.String(), c.Reload)
	}
	return strings.Join(texts, "; ")
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
