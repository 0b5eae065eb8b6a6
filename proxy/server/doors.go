package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/loop"
)

// door is the listeners of one address. They belong to the process: one for each
// worker of a ring, where the kernel shares connections out, and one for all
// workers of netpoll.
type door struct {
	asked     string     // the address as the configuration has it
	address   string     // the same with the port that the system chose for 0
	mu        sync.Mutex // the end of the server may meet a reload that closes the door
	listeners []*loop.Listener
	closed    chan struct{} // nil: it is not closing
	shared    atomic.Bool   // another process has the sockets as well
	yielded   bool          // and accepts in our place
	lent      bool          // and keeps them when we end
}

// add takes one more listener before any worker accepts from it.
func (d *door) add(ln *loop.Listener) {
	if len(d.listeners) > 0 {
		ln.ShareWith(d.listeners[0])
	}
	d.listeners = append(d.listeners, ln)
}

// of are the listeners of worker i out of n. There is one each, but where a process
// with another number of workers opened them: then each of them has at least one
// worker, and each worker at least one of them.
func (d *door) of(i, n int) (mine []*loop.Listener) {
	all := d.all()
	if len(all) == 0 {
		return nil
	}
	if i >= len(all) {
		return all[i%len(all):][:1]
	}
	for ; i < len(all); i += n {
		mine = append(mine, all[i])
	}
	return mine
}

// all are the listeners of now, none of a door that is closed.
func (d *door) all() []*loop.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listeners
}

// replace has others take the place of the listeners, and returns these.
func (d *door) replace(others []*loop.Listener) (were []*loop.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	were, d.listeners = d.listeners, others
	return were
}

func (d *door) close() (err error) {
	for _, ln := range d.replace(nil) {
		err = errors.Join(err, ln.Close())
	}
	return err
}

// doors are those that are open, each once. One goroutine at a time opens them.
type doors struct {
	mu      sync.Mutex
	open    []*door
	closing sync.WaitGroup
}

func (ds *doors) all() []*door {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return slices.Clone(ds.open)
}

// find returns the door of an address.
func (ds *doors) find(asked string) *door {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.open {
		if d.asked == asked {
			return d
		}
	}
	return nil
}

// port reports that one of ours has a port open.
func (ds *doors) port(port int) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return slices.ContainsFunc(ds.open, func(d *door) bool {
		at, err := netip.ParseAddrPort(d.address)
		return err == nil && int(at.Port()) == port
	})
}

func (ds *doors) add(d *door) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.open = append(ds.open, d)
}

func (ds *doors) remove(d *door) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.open = slices.DeleteFunc(ds.open, func(other *door) bool { return other == d })
}

// close closes all of them, when none is being closed any more.
func (ds *doors) close() (err error) {
	ds.closing.Wait()
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.open {
		err = errors.Join(err, d.close())
	}
	ds.open = nil
	return err
}

// listenAddress is what a configuration asks for.
func listenAddress(cfg *config.Config) string {
	return net.JoinHostPort(cfg.Listen.Address, strconv.Itoa(cfg.Listen.Port))
}

// open gives a setup its door. One that is there already stays, but for its
// backlog; one that is being closed is awaited.
func (s *Server) open(next *setup) error {
	asked := listenAddress(next.config)
	d := s.doors.find(asked)
	if d != nil && d.closed != nil {
		<-d.closed
		d = nil
	}
	if d == nil {
		var err error
		if d, err = s.openDoor(asked, next.config); err != nil {
			return errors.Join(err, d.close())
		}
		s.doors.add(d)
	}
	next.door = d
	return nil
}

// abandon closes the door that was opened for a setup which is not applied.
func (s *Server) abandon(next *setup) error {
	d, now := next.door, s.now.Load()
	if d == nil || now != nil && d == now.door {
		return nil
	}
	s.doors.remove(d)
	return d.close()
}

// refuseTime is how long a door that is being closed goes on taking what has begun
// already. Handshakes take a round trip, so this is for the farthest client.
const refuseTime = time.Second

// shut closes a door that no configuration has any more: first all of it takes no
// new connections, then what was queued is served, then its sockets are closed. To
// close one at once would reset what it holds (rule R9).
func (s *Server) shut(ctx context.Context, d *door) {
	d.closed = make(chan struct{})
	s.doors.closing.Go(func() {
		defer close(d.closed)
		s.refuse(d)
		select {
		case <-time.After(refuseTime):
		case <-ctx.Done():
		}
		s.unlisten(context.Background(), d)
		s.doors.remove(d)
		if err := d.close(); err != nil {
			s.log.Warn("stop listening", "address", d.address, "error", err)
			return
		}
		s.log.Info("stopped listening", "address", d.address)
	})
}

func (s *Server) openDoor(asked string, cfg *config.Config) (*door, error) {
	d := &door{asked: asked, address: asked}
	if err := s.inherit(d, cfg.Listen.Backlog); err != nil || len(d.listeners) > 0 {
		return d, err
	}
	// SO_REUSEPORT lets a second program of the same user share the port
	// without a word. One that is in use is asked for without it first.
	if cfg.Listen.Port != 0 && !s.doors.port(cfg.Listen.Port) {
		probe, err := net.Listen(loop.Network(asked), asked)
		if err != nil {
			return d, listenError(asked, err)
		}
		if err := probe.Close(); err != nil {
			return d, fmt.Errorf("listen %s: %w", asked, err)
		}
	}
	for range s.engine.Listeners(len(s.workers)) {
		ln, err := loop.ListenTCP(d.address, cfg.Listen.Backlog)
		if err != nil {
			return d, listenError(d.address, err)
		}
		d.add(ln)
		if err := ln.Ready(s.engine); err != nil {
			return d, err
		}
		d.address = ln.Addr().String() // port 0: the others join the first
	}
	return d, nil
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &KeyError{"listen.port",
			fmt.Errorf("[listen] %s is in use by another program: stop it or choose another port", address)}
	case errors.Is(err, syscall.EACCES):
		return &KeyError{"listen.port",
			fmt.Errorf("[listen] %s: not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE", address)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &KeyError{"listen.address", fmt.Errorf("[listen] %s: this machine has no such address", address)}
	}
	return &KeyError{"listen.address", fmt.Errorf("[listen] %w", err)}
}
