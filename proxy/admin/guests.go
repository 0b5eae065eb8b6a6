package admin

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// guests are the open connections of the listener. Where there is no room for
// another, the one that has waited for longest goes: that keeps a connection open
// between two requests, or takes its time to send one. Otherwise a few dozens of slow
// clients would keep a probe waiting until somebody takes the process for dead.
// Requests that are being answered are left alone, and then others wait.
type guests struct {
	max    int
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open []*conn       // those that wait longer come first
	room chan struct{} // closed when one has left; nil: nobody waits for that
}

// guestsMax is how many there may be, where a process may have so many descriptors:
// those are for clients.
func guestsMax(descriptors int) int { return max(connectionsLeast, min(connectionsMax, descriptors/8)) }

func newGuests(most int) *guests { return &guests{max: most, closed: make(chan struct{})} }

// Accept waits for a connection, and for room for it.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, guests: l.guests}
	if !l.guests.enter(c) {
		_ = accepted.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *listener) Close() error {
	l.guests.once.Do(func() { close(l.guests.closed) })
	return l.Listener.Close()
}

// enter waits for room; false: the listener is closed.
func (g *guests) enter(c *conn) bool {
	for {
		slowest, room := g.tryEnter(c)
		switch {
		case slowest != nil:
			_ = slowest.Close() // nobody there waits for an answer
			continue
		case room == nil:
			return true
		}
		select {
		case <-room:
		case <-g.closed:
			return false
		}
	}
}

// tryEnter lets a connection in, or says which one is to go, or what to wait for.
func (g *guests) tryEnter(c *conn) (slowest *conn, room chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) < g.max {
		g.open = append(g.open, c)
		return nil, nil
	}
	for _, other := range g.open {
		if !other.busy {
			return other, nil
		}
	}
	if g.room == nil {
		g.room = make(chan struct{})
	}
	return nil, g.room
}

// note is told by http.Server what a connection does: it is active from the end of
// the head of a request to the end of the answer.
func (g *guests) note(nc net.Conn, state http.ConnState) {
	c, ours := nc.(*conn)
	if !ours {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.busy = state == http.StateActive
	if state == http.StateIdle {
		if i := slices.Index(g.open, c); i >= 0 {
			g.open = append(slices.Delete(g.open, i, i+1), c)
		}
	}
	if !c.busy {
		g.tell()
	}
}

// tell wakes who waits, if somebody does. It is called under mu.
func (g *guests) tell() {
	if g.room != nil {
		close(g.room)
		g.room = nil
	}
}

func (g *guests) leave(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.open, c); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
		g.tell()
	}
}

// conn is one of them.
type conn struct {
	net.Conn
	guests *guests
	busy   bool // under its mu
}

func (c *conn) Close() error {
	defer c.guests.leave(c)
	return c.Conn.Close()
}
