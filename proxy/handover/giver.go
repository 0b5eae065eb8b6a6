package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// trial is how long an heir that serves has to live until the giver ends.
const trial = time.Second

// Config is what a Giver needs of its process.
type Config struct {
	// Patience is how long an heir may take until it serves.
	Patience time.Duration
	// Legacy is what there is to give. The Giver closes its files.
	Legacy func() (*Legacy, error)
	// Pause stops accepting from the sockets of that name, which an heir accepts
	// from now, without closing them. Resume takes them back.
	Pause  func(names []string)
	Resume func()
}

// Giver gives what the process has to one heir at a time.
type Giver struct {
	config Config
	mu     sync.Mutex
	busy   bool
	gone   bool
}

// NewGiver makes the giver of a process.
func NewGiver(cfg Config) *Giver { return &Giver{config: cfg} }

// ErrBusy says that another heir is being served, or has been.
var ErrBusy = errors.New("another process is taking over already")

// ErrNothing says that a peer came and asked for nothing, as a process does that
// looks whether there is somebody.
var ErrNothing = errors.New("it asked for nothing, and left")

// errGone says that an heir ended, or closed its connection, and did not say why.
var errGone = errors.New("it ended before it took over")

// turn takes the one turn there is.
func (g *Giver) turn() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy || g.gone {
		return ErrBusy
	}
	g.busy = true
	return nil
}

// Give talks to one heir and returns its process when that serves in our place: then
// ours ends. Otherwise it goes on, and the error says why. ctx ends it early, as the
// process ends anyway. Give closes the connection.
func (g *Giver) Give(ctx context.Context, conn *net.UnixConn) (pid int, err error) {
	return g.talk(ctx, conn, answerTime)
}

// talk is Give with a peer that has so much time until its first word.
func (g *Giver) talk(ctx context.Context, conn *net.UnixConn, first time.Duration) (pid int, err error) {
	defer conn.Close()
	w := &wire{conn}
	if pid, err = sameUser(conn); err != nil {
		return 0, err
	}
	// A stranger that says nothing takes nobody's turn.
	hello, err := w.receive(sayHello, first)
	if errors.Is(err, io.EOF) {
		return pid, ErrNothing
	}
	if err != nil {
		return pid, err
	}
	if hello.Version != version {
		err := fmt.Errorf("it speaks version %d of the protocol, this process %d", hello.Version, version)
		return pid, w.refuse(err)
	}
	if err := g.turn(); err != nil {
		return pid, w.refuse(err)
	}
	// The end of ctx interrupts whatever is waited for.
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseRead() })
	defer stop()
	err = g.give(ctx, w)
	g.mu.Lock()
	g.busy, g.gone = false, err == nil
	g.mu.Unlock()
	return pid, err
}

func (g *Giver) give(ctx context.Context, w *wire) error {
	deadline := time.Now().Add(g.config.Patience)
	if err := g.sendLegacy(w); err != nil {
		return w.refuse(err)
	}
	if _, err := w.await(ctx, sayLoaded, time.Until(deadline)); err != nil {
		return w.refuse(g.late(err))
	}
	if err := w.send(message{Say: sayGo}, answerTime); err != nil {
		return err
	}
	serving, err := w.await(ctx, sayServing, max(answerTime, time.Until(deadline)))
	if err != nil {
		return w.refuse(gone(err))
	}
	g.config.Pause(serving.Names)
	// Silence is what it says as long as it lives. Should this process be told to
	// end meanwhile, the heir is better than nobody.
	_, err = w.await(ctx, sayServing, trial)
	if timedOut(err) || errors.Is(err, errEnds) {
		// Who cannot be told is gone, and so is the one who would go on.
		if err = w.send(message{Say: sayYours}, answerTime); err == nil {
			return nil
		}
	}
	g.config.Resume()
	if died(err) {
		err = errEarly
	}
	return w.refuse(err)
}

// sendLegacy sends everything, the descriptors in batches.
func (g *Giver) sendLegacy(w *wire) error {
	legacy, err := g.config.Legacy()
	if err != nil {
		return err
	}
	defer legacy.Close()
	if len(legacy.Sockets) > socketsMax {
		return fmt.Errorf("%d sockets: %d are the most", len(legacy.Sockets), socketsMax)
	}
	err = w.send(message{Say: sayLegacy, Notes: legacy.Notes, Sockets: len(legacy.Sockets)}, answerTime)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(legacy.Sockets, batchMax) {
		m := message{Say: saySockets}
		for _, s := range batch {
			m.Names = append(m.Names, s.Name)
			m.files = append(m.files, s.File)
		}
		if err := w.send(m, answerTime); err != nil {
			return err
		}
	}
	return nil
}

// late says in words that a time is over, or that nobody is left to wait for.
func (g *Giver) late(err error) error {
	if timedOut(err) {
		return fmt.Errorf("it was not ready within %s", g.config.Patience)
	}
	return gone(err)
}

// gone says in words that nobody is there any more.
func gone(err error) error {
	if died(err) {
		return errGone
	}
	return err
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// await receives, unless the process ends.
func (w *wire) await(ctx context.Context, say string, within time.Duration) (message, error) {
	if ctx.Err() != nil {
		return message{}, errEnds
	}
	m, err := w.receive(say, within)
	if ctx.Err() != nil {
		closeAll(m.files)
		return message{}, errEnds
	}
	return m, err
}

// errEarly is errGone of an heir that had begun to serve.
var errEarly = fmt.Errorf("it served, and was gone within %s", trial)

var errEnds = errors.New("this process ends")

// refuse tells the peer why not, if it is there to be told, and returns that.
func (w *wire) refuse(why error) error {
	var refusal *Refusal
	if !errors.As(why, &refusal) {
		_ = w.send(message{Say: sayNo, Why: why.Error()}, answerTime) // it may be gone
	}
	return why
}
