package admin

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"atlas/proxy/config"
)

// desk is one address with what is served there.
type desk struct {
	admin    *Admin
	config   atomic.Pointer[config.Admin]
	listener *listener
	http     *http.Server
	served   chan struct{}
}

// open serves from now on what comes to a listener.
func (a *Admin) open(ln *listener, cfg config.Admin) {
	log := a.options.Log
	d := &desk{admin: a, listener: ln, served: make(chan struct{})}
	d.config.Store(&cfg)
	d.http = &http.Server{
		Handler:           d.guard(a.routes()),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headBytesMax,
		ConnState:         ln.guests.note,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	d.warn()
	log.Info("admin listens", "address", ln.address())
	a.desk.Store(d)
	go func() {
		defer close(d.served)
		if err := d.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin has ended", "error", err)
		}
	}()
}

// What an address that is not this machine's own is warned of.
const (
	remoteWarning = "the admin address can be reached by others, and has no password"
	remoteHint    = "set allow_remote where that is meant"
)

func (d *desk) warn() {
	if d.listener.remote && !d.config.Load().AllowRemote {
		d.admin.options.Log.Warn(remoteWarning+": "+remoteHint, "address", d.listener.address())
	}
}

// close ends it now.
func (d *desk) close() error {
	err := d.http.Close()
	<-d.served
	return errors.Join(err, d.listener.forget())
}

// leave lets what is being answered end, which may be the very request that has the
// address changed.
func (d *desk) leave() {
	d.admin.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		defer cancel()
		_ = d.http.Shutdown(ctx) // what has not ended in time is cut
		if err := d.close(); err != nil {
			d.admin.options.Log.Warn("close the admin listener", "error", err)
		}
		d.admin.options.Log.Info("admin stopped listening", "address", d.listener.address())
	})
}

// Prepare has what another configuration asks for ready, or says why that is not to
// be had. It is a server.Beside.
func (a *Admin) Prepare(cfg *config.Config) (take, drop func(), err error) {
	next, d := cfg.Admin, a.desk.Load()
	nothing := func() {}
	if later := a.later.Load(); later != nil && later.Address == next.Address {
		return func() { a.later.CompareAndSwap(later, &next) }, nothing, nil
	}
	switch {
	case next.Address == "" && d == nil:
		return nothing, nothing, nil
	case next.Address == "":
		return func() { a.desk.Store(nil); d.leave() }, nothing, nil
	}
	if d != nil {
		now := d.config.Load()
		if now.Address == next.Address && now.SocketMode == next.SocketMode && !d.listener.lost() {
			return func() {
				if before := d.config.Swap(&next); *before != next {
					d.warn()
				}
			}, nothing, nil
		}
	}
	ln, err := listen(&next, d != nil && d.listener.near(next.Address))
	if err != nil {
		return nil, nil, err
	}
	take = func() {
		a.open(ln, next)
		if d != nil {
			d.leave()
		}
	}
	drop = func() { _ = errors.Join(ln.Close(), ln.forget()) } // nobody was served there
	return take, drop, nil
}

// lost reports that the name of a Unix socket is not there any more: something that
// tidies up has taken it away, and nobody finds the listener.
func (l *listener) lost() bool {
	if l.path == "" {
		return false
	}
	_, err := os.Lstat(l.path)
	return errors.Is(err, fs.ErrNotExist)
}

// near reports that a listener stands in the way of one with another address: that
// has the same path or port.
func (l *listener) near(address string) bool {
	if l.path != "" {
		return l.path == config.UnixPath(address)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, other, _ := net.SplitHostPort(address)
	return port == other
}
