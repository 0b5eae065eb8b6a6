package proxyhead

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// Config is how a Handler takes headers.
type Config struct {
	// From are the networks whose connections begin with a header. Nobody else
	// is asked for one, or believed: bytes that look like it are the client's.
	From  []netip.Prefix
	Wait  time.Duration // from accepting a connection until its header is complete
	Stats *stats.Stats  // the worker's
	// Refused is told of connections without a header that is one. It is called
	// on the worker and must not wait. nil: nobody is.
	Refused func(proxy netip.AddrPort, why error)
	// Admit is asked about a client that a header names, before anybody above
	// hears of it: false resets the connection. nil admits all.
	Admit func(c loop.Conn) bool
}

// Handler is the loop.Handler that takes the headers off connections, and hands
// these to another handler as if the clients themselves had connected.
type Handler struct {
	config Config
	above  loop.Handler
	parser Parser
}

// NewHandler makes the handler of one worker in front of another handler.
func NewHandler(cfg Config, above loop.Handler) *Handler {
	return &Handler{config: cfg, above: above}
}

// mark is attached to connections that the handler above has not served yet. That
// one attaches what it likes later.
type mark uint8

const (
	owes  mark = iota + 1 // the header has not come
	fresh                 // it has, and nothing behind it
)

// Open hands over at once who owes no header.
func (h *Handler) Open(c loop.Conn) {
	if !h.asks(c.Remote().Addr()) {
		h.above.Open(c)
		return
	}
	c.Attach(owes)
	c.SetReadDeadline(c.Loop().Now().After(h.config.Wait))
}

func (h *Handler) asks(proxy netip.Addr) bool {
	for _, network := range h.config.From {
		if network.Contains(proxy) {
			return true
		}
	}
	return false
}

// Greets is true for those who owe a header, also: then one that does not come in
// time can be told from an idle connection.
func (h *Handler) Greets(c loop.Conn) bool {
	return c.Attachment() == owes || loop.Greets(h.above, c)
}

// Serve reads the header, if it is owed, before it hands over.
func (h *Handler) Serve(c loop.Conn) (keep bool) {
	switch c.Attachment() {
	case owes:
		named, err := h.read(c)
		if err != nil {
			h.refuse(c, err)
		}
		if err != nil || named && h.config.Admit != nil && !h.config.Admit(c) {
			c.Reset()
			return false
		}
		c.Attach(nil)
		h.above.Open(c)
		if len(c.Peek()) == 0 && !loop.Greets(h.above, c) {
			if c.Attachment() == nil {
				c.Attach(fresh)
			}
			return true
		}
	case fresh:
		c.Attach(nil)
	}
	return h.above.Serve(c)
}

// read takes the header off, and says whether it named a client. It waits.
func (h *Handler) read(c loop.Conn) (named bool, err error) {
	for {
		n, said, err := h.parser.Parse(c.Peek())
		if err == nil {
			c.Consume(n)
			if named = said.From.IsValid(); named {
				c.SetAddrs(said.To, said.From)
			}
			return named, nil
		}
		if err != ErrShort {
			return false, err
		}
		if err := c.Fill(); err != nil {
			return false, fmt.Errorf("%w: %w", ErrShort, err)
		}
	}
}

// refuse tells of a header that is none. One who leaves without a word has looked
// whether we are here.
func (h *Handler) refuse(c loop.Conn, why error) {
	silent := len(c.Peek()) == 0 && !errors.Is(why, loop.ErrDeadline)
	if silent || errors.Is(why, loop.ErrStopped) {
		return
	}
	h.config.Stats.FailClient(stats.BadProxyHeader)
	if h.config.Refused != nil {
		h.config.Refused(c.Remote(), why)
	}
}

// Leave passes on the last word of the handler above.
func (h *Handler) Leave(c loop.Conn) {
	if above, leaves := h.above.(loop.Leaver); leaves && !unserved(c) {
		above.Leave(c)
	}
}

// Fresh reports that nothing but a header has come of the connection.
func (h *Handler) Fresh(c loop.Conn) bool {
	above, leaves := h.above.(loop.Leaver)
	return unserved(c) || leaves && above.Fresh(c)
}

func unserved(c loop.Conn) bool {
	_, is := c.Attachment().(mark)
	return is
}
