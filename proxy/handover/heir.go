package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Heir is the side of the process that comes. Its methods are called in the order
// in which they stand here, but for Fail and Close.
type Heir struct {
	wire   wire
	Legacy Legacy
	// Before is the process whose place this one takes.
	Before int
	gone   bool // the giver is
	child  bool // of the giver, which reads our standard error
}

// Connect asks whoever listens at a path to hand over.
func Connect(path string) (*Heir, error) {
	conn, err := net.DialTimeout("unix", path, answerTime)
	if err != nil {
		return nil, err
	}
	return newHeir(conn.(*net.UnixConn))
}

// newHeir asks for the legacy.
func newHeir(conn *net.UnixConn) (_ *Heir, err error) {
	h := &Heir{wire: wire{conn}}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if h.Before, err = sameUser(conn); err != nil {
		return nil, err
	}
	if err := h.wire.send(message{Say: sayHello, Version: version}, answerTime); err != nil {
		return nil, err
	}
	legacy, err := h.wire.receive(sayLegacy, answerTime)
	if err != nil {
		return nil, err
	}
	if legacy.Sockets < 0 || legacy.Sockets > socketsMax {
		return nil, fmt.Errorf("%d sockets: %d are the most", legacy.Sockets, socketsMax)
	}
	h.Legacy.Notes = legacy.Notes
	for len(h.Legacy.Sockets) < legacy.Sockets {
		batch, err := h.wire.receive(saySockets, answerTime)
		if err != nil {
			return nil, err
		}
		if len(batch.Names) == 0 || len(batch.Names) != len(batch.files) {
			closeAll(batch.files)
			return nil, fmt.Errorf("%d sockets came for %d names", len(batch.files), len(batch.Names))
		}
		for i, name := range batch.Names {
			h.Legacy.Sockets = append(h.Legacy.Sockets, Socket{name, batch.files[i]})
		}
	}
	return h, nil
}

// Loaded is called when everything is ready but for clients. An error says that the
// other process goes on, and this one has to end. One that died meanwhile is no
// error: then nobody but us is left to serve.
func (h *Heir) Loaded() error {
	err := h.wire.send(message{Say: sayLoaded}, answerTime)
	if err == nil || died(err) { // it may have said no before
		_, err = h.wire.receive(sayGo, answerTime)
	}
	h.gone = died(err)
	if h.gone {
		return nil
	}
	return err
}

// Serving is called when clients of the named sockets are served.
func (h *Heir) Serving(names []string) error {
	if h.gone {
		return nil
	}
	err := h.wire.send(message{Say: sayServing, Names: names}, answerTime)
	if died(err) {
		return nil // Mine hears whether it said no before
	}
	return err
}

// Mine waits until the place is ours for good. An error says that the other process
// has gone on, and this one has to end.
func (h *Heir) Mine() error {
	defer h.Close()
	if h.gone {
		return nil
	}
	_, err := h.wire.receive(sayYours, trial+2*answerTime)
	if died(err) {
		return nil
	}
	return err
}

// died reports that the peer's process has ended without a word. One that goes on
// says so.
func died(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// Fail tells the other process why this one does not take over.
func (h *Heir) Fail(why error) {
	_ = h.wire.refuse(why)
	h.Close()
}

// Close ends the talk and closes the sockets that nobody has taken.
func (h *Heir) Close() {
	h.Legacy.Close()
	_ = h.wire.conn.Close() // it may be closed
}
