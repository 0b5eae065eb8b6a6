package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/handover"
	"atlas/proxy/loop"
)

// Estate is what a process begins with that another one has opened: the one before
// it, or the one that started it.
type Estate struct {
	// Legacy has sockets by the address that a configuration asks for, and notes.
	// nil is nothing. What the configuration does not ask for stays there.
	Legacy *handover.Legacy
	// Lent says that whoever opened the sockets keeps them, and may listen there
	// when this process has ended.
	Lent bool
	// Loaded is asked when everything is ready but for clients. An error ends the
	// start. nil says yes.
	Loaded func() error
}

// Succeed is Start with what others have opened.
func Succeed(cfg *config.Config, log *slog.Logger, e Estate) (*Server, error) {
	return startWith(cfg, log, func(h exchange.Handler) exchange.Handler { return h }, e)
}

// notes by their names.
const (
	ticketsNotes = "tickets"
	lentNotes    = "lent" // names of sockets
)

// DoorName is the name of what a configuration listens on, in a Legacy.
func DoorName(cfg *config.Config) string { return listenAddress(cfg) }

// inherit gives a door the sockets that are there for it.
func (s *Server) inherit(d *door, backlog int) error {
	if s.estate.Legacy == nil {
		return nil
	}
	files := s.estate.Legacy.Take(d.asked)
	defer func() {
		for _, f := range files {
			_ = f.Close() // the listener has a duplicate
		}
	}()
	for _, f := range files {
		ln, err := loop.Adopt(f, backlog)
		if err != nil {
			return fmt.Errorf("[listen] %s, handed over: %w", d.asked, err)
		}
		d.add(ln)
		if err := ln.Ready(s.engine); err != nil { // two workers may have one
			return err
		}
		d.address = ln.Addr().String()
	}
	d.shared.Store(true)
	d.lent = s.estate.Lent || slices.Contains(readNote[[]string](s, lentNotes), d.asked)
	return nil
}

// readNote reads a note, of which nothing is left if it is not as expected.
func readNote[T any](s *Server, name string) (value T) {
	if note := s.estate.Legacy.Notes[name]; note == nil || json.Unmarshal(note, &value) != nil {
		return *new(T)
	}
	return value
}

// inheritNotes takes over what is worth it.
func (s *Server) inheritNotes() {
	if s.estate.Legacy != nil {
		s.handshakes.adopt(readNote[ticketsNote](s, ticketsNotes))
	}
}

// loaded asks whether to begin.
func (s *Server) loaded() error {
	if s.estate.Loaded == nil {
		return nil
	}
	return s.estate.Loaded()
}

// Legacy is what this process can leave to another one. Until Stay its configuration
// stays as it is. A reload that goes on ends first: it might close what another
// process has by then.
func (s *Server) Legacy() (l *handover.Legacy, err error) {
	failed := s.reloader.ask(func(context.Context) error {
		s.leaving.Store(true)
		l, err = s.legacy()
		return err
	})
	return l, failed
}

func (s *Server) legacy() (*handover.Legacy, error) {
	var lent []string
	for _, d := range s.doors.all() {
		if d.lent {
			lent = append(lent, d.asked)
		}
	}
	l := &handover.Legacy{Notes: make(map[string]json.RawMessage)}
	for name, value := range map[string]any{ticketsNotes: s.handshakes.note(), lentNotes: lent} {
		note, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		l.Notes[name] = note
	}
	for _, d := range s.doors.all() {
		for _, ln := range d.all() {
			file, err := ln.File()
			if err != nil {
				l.Close()
				return nil, err
			}
			l.Sockets = append(l.Sockets, handover.Socket{Name: d.asked, File: file})
		}
	}
	return l, nil
}

// Doors are the addresses that this process listens on, by their names in Legacy.
func (s *Server) Doors() (names []string) {
	for _, d := range s.doors.all() {
		names = append(names, d.asked)
	}
	return names
}

// Yield stops accepting where another process does now. The sockets stay open: it
// has the same ones.
func (s *Server) Yield(names []string) {
	for _, name := range names {
		if d := s.doors.find(name); d != nil {
			d.yielded = true
			d.shared.Store(true)
			s.unlisten(context.Background(), d)
		}
	}
}

// Resume takes back what was yielded.
func (s *Server) Resume() {
	for _, d := range s.doors.all() {
		if !d.yielded {
			continue
		}
		d.yielded = false
		d.shared.Store(d.lent)
		for i, err := range s.each(context.Background(), func(w *worker, done func(error)) {
			done(w.listen(d))
		}) {
			if err != nil {
				s.log.Error("accept again", "address", d.address, "worker", i, "error", err)
			}
		}
	}
}

// Stay says that nobody takes our place after all. What the configuration has become
// meanwhile is applied, soon.
func (s *Server) Stay() {
	s.leaving.Store(false)
	go func() {
		_ = s.reloader.ask(func(ctx context.Context) error { // it is logged
			return s.reloader.look(ctx, "no upgrade", false)
		})
	}()
}

// UpgradeStatus says what became of upgrades so far.
type UpgradeStatus struct {
	From int // the process whose place this one took; 0: nobody's

	// The last process that was to take the place of this one and did not: when that
	// was, and why. Of one that was started here also how it ended, and what it had
	// printed. No time: there was none.
	Last    time.Time
	Error   string
	Ended   string
	Printed string

	Failed uint64 // of them so far
}

// upgrades is the UpgradeStatus of now.
type upgrades struct {
	mu     sync.Mutex
	status UpgradeStatus
}

func (u *upgrades) now() UpgradeStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// TookOver notes whose place this process has. Any goroutine.
func (s *Server) TookOver(from int) {
	s.upgrades.mu.Lock()
	defer s.upgrades.mu.Unlock()
	s.upgrades.status.From = from
}

// NotUpgraded notes that nobody took the place of this process, and why; ended and
// printed are of a process that was started here. Any goroutine.
func (s *Server) NotUpgraded(why error, ended, printed string) {
	s.upgrades.mu.Lock()
	defer s.upgrades.mu.Unlock()
	now := &s.upgrades.status
	now.Last, now.Error, now.Ended, now.Printed = time.Now(), why.Error(), ended, printed
	now.Failed++
}

// Alone is called when nobody else accepts from what was inherited any more. Where
// there are more workers than sockets the others get some of their own.
func (s *Server) Alone() {
	err := s.reloader.ask(func(context.Context) (err error) {
		for _, d := range s.doors.all() {
			d.shared.Store(d.lent)
			err = errors.Join(err, s.widen(d))
		}
		return err
	})
	if err != nil {
		s.log.Warn("workers share sockets", "error", err)
	}
}

func (s *Server) widen(d *door) error {
	have, want := len(d.listeners), s.engine.Listeners(len(s.workers))
	if have == 0 || have >= want || !d.listeners[0].Joins() || s.now.Load().door != d {
		return nil
	}
	wider := &door{listeners: d.listeners[:have:have]}
	for range want - have {
		ln, err := loop.ListenTCP(d.address, s.Config().Listen.Backlog)
		if err == nil {
			err = ln.Ready(s.engine)
			wider.add(ln)
		}
		if err != nil {
			wider.listeners = wider.listeners[have:]
			return errors.Join(err, wider.close())
		}
	}
	// First who is to have one of the new ones listens there, then all know.
	before := d.listeners
	failures := s.each(context.Background(), func(w *worker, done func(error)) {
		if w.index < have {
			done(nil)
			return
		}
		err := w.Listen(wider.listeners[w.index], w.now.front)
		w.Unlisten(before[w.index%have], func() {})
		done(err)
	})
	d.replace(wider.listeners)
	return errors.Join(failures...)
}

// unlisten ends accepting from a door on all workers, and returns when all that was
// connected is served, or ctx is done: then it says no.
func (s *Server) unlisten(ctx context.Context, d *door) bool {
	// Whoever closes the door does not wait for a worker that answers late.
	of := make([][]*loop.Listener, len(s.workers))
	for i := range of {
		of[i] = d.of(i, len(s.workers))
	}
	return s.each(ctx, func(w *worker, done func(error)) {
		mine := of[w.index]
		left := len(mine)
		if left == 0 {
			done(nil)
		}
		for _, ln := range mine {
			w.Unlisten(ln, func() {
				if left--; left == 0 {
					done(nil)
				}
			})
		}
	}) != nil
}

// each runs f on all workers, and returns when each has called done, or ended.
func (s *Server) each(ctx context.Context, f func(w *worker, done func(error))) []error {
	failures := make([]error, len(s.workers))
	answers := make(chan struct{}, len(s.workers))
	for i, w := range s.workers {
		done := func(err error) { failures[i] = err; answers <- struct{}{} }
		if !w.Post(func() { f(w, done) }) {
			answers <- struct{}{}
		}
	}
	for range s.workers {
		select {
		case <-answers:
		case <-ctx.Done():
			return nil
		}
	}
	return failures
}

// Unready has readiness fail from now on, though everything is served: whoever
// sends clients here has time to look for another place.
func (s *Server) Unready() { s.unready.Store(true) }

// Ready reports that new clients are welcome.
func (s *Server) Ready() bool { return !s.unready.Load() }
