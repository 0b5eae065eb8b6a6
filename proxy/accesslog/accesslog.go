// Package accesslog writes a line for each exchange, and for each connection in
// tcp mode: workers fill Records and push lines that are made of them into Rings, and
// one goroutine writes what is in these.
//
// It never holds a worker up: a push copies into memory that is there, and where
// that is full, since a disk is slow or a pipe has no reader, the line is
// dropped and counted. It decides nothing about exchanges, keeps no history and
// rotates no file: it opens its file again when it is told to.
//
// A Record and a Ring belong to one worker. A Log is for any goroutine.
package accesslog

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"atlas/proxy/stats"
)

const (
	// gather is how long a line may wait for others to be written with it.
	gather = 250 * time.Millisecond
	// batchBytes is how much is written at once, where there is as much.
	batchBytes = 512 << 10
)

// pace is how often what goes wrong is looked at again.
type pace struct {
	retry time.Duration // how long a write that failed is left alone
	warn  time.Duration // the least time between two warnings about the same
}

// Settings are what a configuration says of the access log.
type Settings struct {
	Format *Format // nil: it is off
	Path   string  // of a file, or Stdout or Stderr
	Sample int     // one of so many exchanges that went well is logged; 0 is each
}

// Log is the access log of a process.
type Log struct {
	log   *slog.Logger
	pace  pace
	rings []*Ring

	wake   chan struct{} // has the goroutine look at everything below
	drops  chan struct{} // a ring has dropped something
	next   atomic.Pointer[output]
	reopen atomic.Bool
	ending chan struct{}
	closed sync.Once
	done   sync.WaitGroup

	// Of the goroutine.
	out   *output
	alarm alarm
}

// New makes the log of so many workers; counters are theirs. It writes nothing
// before Apply.
func New(counters []*stats.Stats, log *slog.Logger) *Log {
	return newLog(counters, log, pace{retry: time.Second, warn: 10 * time.Second})
}

func newLog(counters []*stats.Stats, log *slog.Logger, p pace) *Log {
	l := &Log{
		log:    log,
		pace:   p,
		wake:   make(chan struct{}, 1),
		drops:  make(chan struct{}, 1),
		ending: make(chan struct{}),
	}
	for _, s := range counters {
		l.rings = append(l.rings, newRing(ringBytes, &s.LogDropped, l.wake, l.drops))
	}
	l.done.Go(l.run)
	l.done.Go(l.watch)
	return l
}

// Ring is that of worker i.
func (l *Log) Ring(i int) *Ring { return l.rings[i] }

// Open opens what the settings name, or says why not. Apply takes it from there.
func Open(s Settings) (*Opened, error) {
	o := &output{settings: s}
	if s.Format == nil {
		return &Opened{o}, nil
	}
	if err := o.open(); err != nil && err != errNoReader {
		return nil, err
	}
	return &Opened{o}, nil
}

// Opened are Settings with what they name.
type Opened struct{ output *output }

// Close is for what was not applied.
func (o *Opened) Close() { o.output.close() }

// Apply has records written by other settings from now on. What is in the rings
// already has the format of the old ones, in the place of either.
func (l *Log) Apply(o *Opened) {
	next := o.output
	for _, r := range l.rings {
		r.sample.Store(uint32(max(next.settings.Sample, 1)))
		r.format.Store(next.settings.Format)
	}
	if old := l.next.Swap(next); old != nil {
		old.close() // two changes in a moment: nobody has seen it
	}
	l.nudge()
}

// Reopen opens the file anew, under the name that it had: what had it may have
// been moved away meanwhile. Every line is in one of both.
func (l *Log) Reopen() {
	l.reopen.Store(true)
	l.nudge()
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Close writes what is in the rings, and waits for that no longer than within. No
// worker may push any more.
func (l *Log) Close(within time.Duration) {
	l.closed.Do(func() { close(l.ending) })
	written := make(chan struct{})
	go func() {
		l.done.Wait()
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(within):
	}
}

// run writes.
func (l *Log) run() {
	timer := time.NewTimer(gather)
	for busy := false; !l.ended(); {
		if busy || l.await() {
			l.call(callMany)
			timer.Reset(gather)
			select {
			case <-l.wake: // there is much
			case <-timer.C:
			case <-l.ending:
			}
		}
		l.look()
		// Where there was something there will be more: no need to be woken for it.
		busy = l.drain()
	}
	l.look()
	l.drain()
	if l.out != nil {
		l.out.close()
	}
}

func (l *Log) ended() bool {
	select {
	case <-l.ending:
		return true
	default:
		return false
	}
}

// await waits until there is something to do, and reports that it is a line.
func (l *Log) await() (lines bool) {
	l.call(callAny)
	for !l.any() {
		if l.next.Load() != nil || l.reopen.Load() {
			return false
		}
		select {
		case <-l.wake:
		case <-l.ending:
			return false
		}
	}
	return true
}

// call has rings call when there is more in them.
func (l *Log) call(at int64) {
	for _, r := range l.rings {
		r.callAt.Store(at)
	}
}

func (l *Log) any() bool {
	for _, r := range l.rings {
		if !r.empty() {
			return true
		}
	}
	return false
}

// look takes over what Apply and Reopen have left.
func (l *Log) look() {
	if next := l.next.Swap(nil); next != nil {
		old := l.out
		l.out = next
		if old != nil {
			old.close()
		}
	}
	if l.reopen.Swap(false) && l.out != nil {
		if err := l.out.again(); err != nil {
			l.log.Warn("access log: cannot open it again: the old file stays in use", "path", l.out.settings.Path,
				"error", err)
		}
	}
}

// drain writes what is in the rings now, and reports that there was something.
func (l *Log) drain() (lines bool) {
	for _, r := range l.rings {
		for goal := r.pushed.Load(); r.taken.Load() < goal; lines = true {
			some := r.peek(batchBytes)
			if l.out == nil || l.out.settings.Format == nil {
				r.take(len(some))
				continue
			}
			l.write(r, some)
		}
	}
	return lines
}

// write writes lines of a ring. Where that fails the rest stays there, so that no
// line is torn, and is tried again later; others may be pushed as long as there is
// room.
func (l *Log) write(r *Ring, lines []byte) {
	torn := false // lines begin inside of one, whose begin l.out has
	for len(lines) > 0 {
		n, err := l.out.write(lines)
		if n > 0 {
			torn = lines[n-1] != '\n'
		}
		r.take(n)
		lines = lines[n:]
		if err == nil {
			l.alarm.clear(func(since time.Duration) {
				l.log.Info("access log: it is written again", "path", l.out.settings.Path, "after", since)
			})
			continue
		}
		l.alarm.raise(l.pace.warn, func() {
			l.log.Warn("access log: it cannot be written", "path", l.out.settings.Path, "error", err)
		})
		wanted, elsewhere := l.pause()
		n = 0
		if !wanted {
			n = len(lines)
		} else if torn && elsewhere { // its other half is not there
			n, torn = bytes.IndexByte(lines, '\n')+1, false
		}
		r.take(n)
		lines = lines[n:]
	}
}

// pause waits before a write is tried again, perhaps elsewhere; or it is not wanted
// any more.
func (l *Log) pause() (wanted, elsewhere bool) {
	timer := time.NewTimer(l.pace.retry)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true, false
		case <-l.ending:
			return false, false
		case <-l.wake:
			if l.next.Load() == nil && !l.reopen.Load() {
				continue // a ring calls: it has to wait
			}
			l.look()
			return l.out.settings.Format != nil, true
		}
	}
}

// alarm keeps a fault that comes and goes from filling the other log.
type alarm struct {
	raised bool
	told   bool
	since  time.Time
	last   time.Time // when it was told
}

func (a *alarm) raise(every time.Duration, tell func()) {
	now := time.Now()
	if !a.raised {
		a.raised, a.told, a.since = true, false, now
	}
	if !a.told && now.Sub(a.last) >= every {
		a.told, a.last = true, now
		tell()
	}
}

func (a *alarm) clear(tell func(since time.Duration)) {
	if a.raised && a.told {
		tell(time.Since(a.since).Round(time.Millisecond))
	}
	a.raised = false
}

// watch tells of lines that are dropped: it is another goroutine's work, as the
// one that writes may just be waiting for a disk.
func (l *Log) watch() {
	for known := int64(0); ; {
		select {
		case <-l.drops:
		case <-l.ending:
			return
		}
		for behind := false; ; behind = true {
			dropped := l.dropped()
			if dropped == known && behind {
				l.log.Info("access log: it keeps up again", "dropped", dropped)
			}
			if dropped == known {
				break // also where a word came late
			}
			l.log.Warn("access log: lines dropped: what it is written to does not keep up", "lines", dropped-known,
				"dropped", dropped)
			known = dropped
			select {
			case <-time.After(l.pace.warn):
			case <-l.ending:
				return
			}
		}
	}
}

// dropped is how many lines there was no room for.
func (l *Log) dropped() (n int64) {
	for _, r := range l.rings {
		n += r.dropped.Load()
	}
	return n
}
