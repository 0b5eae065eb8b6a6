// Package admin is the listener for those who run Atlas: metrics, health, status,
// profiles, and the few commands that change something at run time.
//
// It serves no client, has no password and no TLS: who may reach its address may
// use it, so that is a loopback address or a Unix socket unless the configuration
// says that another is meant. It decides nothing either: what it shows and does is
// the server's.
//
// It runs on ordinary goroutines with net/http. A worker is reached by what it
// counts in atomics, and by functions that it is given to run between two others
// (loop.Loop.Post); nothing here waits for one without a bound.
package admin

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atlas/proxy/config"
	"atlas/proxy/server"
)

// Options are what an Admin needs to know.
type Options struct {
	Config  config.Admin
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log
	// LogDropped counts the lines of the log that were not written; nil: none
	// ever are.
	LogDropped func() int64
	// Takeover says that the address may be that of a process whose place this
	// one takes: then it stays that one's until Claim.
	Takeover bool
}

// Server is what an Admin is about: *server.Server.
type Server interface {
	Status(ctx context.Context) server.Status
	Reloads() server.ReloadStatus
	Silent(ctx context.Context) (workers []int)
	NotReady() (why string)
	DrainUpstream(name string, out bool) (known bool)
	Reload(why string) error
	Config() *config.Config
}

// Admin is the running listener, which may have no address for a while.
type Admin struct {
	options  Options
	registry *prometheus.Registry
	server   atomic.Pointer[Server]       // nil: it has not started yet
	desk     atomic.Pointer[desk]         // nil: there is no address
	later    atomic.Pointer[config.Admin] // what Claim opens; nil: nothing
	leaving  sync.WaitGroup               // desks that were replaced
}

// Bounds of what one client may ask of this listener.
const (
	connectionsMax = 64
	// connectionsLeast are there however few descriptors the process may have.
	connectionsLeast = 4
	headBytesMax     = 16 << 10
	bodyBytesMax     = 4 << 10
	readTimeout      = 10 * time.Second
	writeTimeout     = 20 * time.Second
	idleTimeout      = 30 * time.Second

	// leaveTimeout is for what is being answered where the address changes.
	leaveTimeout = 20 * time.Second

	// askTimeout is how long workers have to answer.
	askTimeout = time.Second
)

// Start listens and serves, if the configuration has an address. Until Attach it says
// that the process is starting.
func Start(o Options) (*Admin, error) {
	a := &Admin{options: o}
	a.registry = newRegistry(a)
	if o.Config.Address == "" {
		return a, nil
	}
	if o.Takeover && taken(o.Config.Address) {
		a.later.Store(&o.Config)
		return a, nil
	}
	ln, err := listen(&o.Config, false)
	if err != nil {
		return nil, err
	}
	a.open(ln, o.Config)
	return a, nil
}

// Claim listens where the process before this one did, which has left, or is about
// to.
func (a *Admin) Claim() error {
	cfg := a.later.Swap(nil)
	if cfg == nil {
		return nil
	}
	ln, err := listen(cfg, true)
	if err != nil {
		return err
	}
	a.open(ln, *cfg)
	return nil
}

// Leave ends it for another process to claim the address.
func (a *Admin) Leave() error {
	d := a.desk.Swap(nil)
	if d == nil {
		return nil
	}
	d.listener.file = nil // the name is that one's
	return d.close()
}

// Attach says which server this is about.
func (a *Admin) Attach(s Server) { a.server.Store(&s) }

// Addr is the address that is listened on, as it would be configured; empty: none.
func (a *Admin) Addr() string {
	if d := a.desk.Load(); d != nil {
		return d.listener.address()
	}
	return ""
}

// Close ends it, and what it is just answering.
func (a *Admin) Close() (err error) {
	if d := a.desk.Swap(nil); d != nil {
		err = d.close()
	}
	a.leaving.Wait()
	return err
}

// attached is the server, or nil.
func (a *Admin) attached() Server {
	if s := a.server.Load(); s != nil {
		return *s
	}
	return nil
}

// status asks the server; false: there is none yet.
func (a *Admin) status(ctx context.Context) (server.Status, bool) {
	s := a.attached()
	if s == nil {
		return server.Status{Reason: "starting"}, false
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return s.Status(ctx), true
}
