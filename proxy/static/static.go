// Package static serves the files of one directory.
//
// It refuses to lead out of the directory, to list it, to show hidden files and
// to serve what is not a regular file. It opens nothing itself: package loop
// does, without stopping the worker.
//
// A Handler belongs to one worker. What its cache holds never changes: a
// changed file gets a new entry.
package static

import (
	"errors"
	"io/fs"
	"mime"
	"time"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// Config is what a Handler serves.
type Config struct {
	Dir        *loop.Dir
	Index      string // file that stands for a directory
	CacheBytes int64  // this worker's share
}

const (
	// entryBytesMax is the largest file that is cached; larger ones are sent
	// from the page cache by sendfile.
	entryBytesMax = 1 << 20
	// freshFor is how long a cached file is believed to be unchanged.
	freshFor = time.Second
)

// Handler answers requests for files.
type Handler struct {
	config Config
	cache  cache
	name   []byte // scratch: the canonical name of the request at hand
}

// New makes the handler of one worker.
func New(cfg Config) *Handler {
	// The first look-up reads the system's tables from disk: do it now.
	_ = mime.TypeByExtension(".html")
	return &Handler{config: cfg, cache: cache{bytesMax: cfg.CacheBytes}}
}

// Handle answers one request.
func (h *Handler) Handle(x *exchange.Exchange) {
	r := x.Request
	if r.Method != h1.MethodGet && r.Method != h1.MethodHead {
		x.Fail(405, "files are only read", "Allow", "GET, HEAD")
		return
	}
	name, problem := appendName(h.name[:0], r.Path)
	h.name = name
	if problem != "" {
		x.Fail(400, problem)
		return
	}
	if hidden(name) {
		x.Fail(404, "there is no such file")
		return
	}
	if e := h.cache.find(name); e != nil && x.Loop.Now() < e.checked.After(freshFor) {
		h.send(x, e)
		return
	}
	h.load(x, string(name))
}

// load answers from the disk, and remembers a small file. From here on the
// request waits, so its head is gone: what is needed of it is taken first.
func (h *Handler) load(x *exchange.Exchange, name string) {
	conditions := takeConditions(x.Request)
	query := string(x.Request.Query)
	hasQuery := x.Request.Query != nil
	x.ReleaseHead()

	if e := h.cache.get(name); e != nil {
		// Others of this worker may serve it as it is meanwhile.
		e.checked = x.Loop.Now()
		if stat, err := h.config.Dir.Look(x.Loop, e.file); err == nil && stat.Same(e.stat) {
			h.sendIf(x, e, conditions)
			return
		}
		h.cache.drop(name)
	}

	file := name
	if file == "" || file[len(file)-1] == '/' {
		file += h.config.Index
	}
	stat, bytes, open, err := h.config.Dir.Load(x.Loop, file, h.largest())
	switch {
	case err != nil:
		failOpen(x, err)
	case stat.Dir && file == name: // not an index that is a directory
		location := appendEscaped([]byte{'/'}, name)
		location = append(location, '/')
		if hasQuery {
			location = append(append(location, '?'), query...)
		}
		x.Fail(301, "a directory ends with a slash", "Location", string(location))
	case !stat.Regular:
		x.Fail(404, "there is no such file")
	case open != nil:
		defer open.Close()
		h.sendOpen(x, file, open, conditions)
	default:
		e := newEntry(name, file, stat, bytes, x.Loop.Now())
		h.cache.add(e)
		h.sendIf(x, e, conditions)
	}
}

// largest is up to which size a file is worth caching: at most a quarter of the
// cache, so that one file cannot push out all others.
func (h *Handler) largest() int64 { return min(entryBytesMax, h.config.CacheBytes/4) }

func failOpen(x *exchange.Exchange, err error) {
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.Fail(403, "the server may not read this file")
	case loop.NotFound(err):
		x.Fail(404, "there is no such file")
	default:
		x.Fail(500, "the server cannot read this file")
	}
}

// send answers from the cache with the request's head still at hand.
func (h *Handler) send(x *exchange.Exchange, e *entry) {
	if x.Request.Has(h1.KeyIfNoneMatch) || x.Request.Has(h1.KeyIfModifiedSince) {
		h.sendIf(x, e, takeConditions(x.Request))
		return
	}
	tail := e.tail
	if x.Method == h1.MethodHead {
		tail = tail[:2]
	}
	// A failed send shows at the next one, or closes the connection.
	_ = x.SendPrepared(200, e.head, tail)
}

func (h *Handler) sendIf(x *exchange.Exchange, e *entry, cond conditions) {
	switch {
	case cond.unchanged(e.etag, e.stat.ModTime):
		_ = x.SendPrepared(304, e.headUnchanged, e.tail[:2])
	case x.Method == h1.MethodHead:
		_ = x.SendPrepared(200, e.head, e.tail[:2])
	default:
		_ = x.SendPrepared(200, e.head, e.tail)
	}
}

// sendOpen answers with a file that is too large for the cache.
func (h *Handler) sendOpen(x *exchange.Exchange, file string, f *loop.File, cond conditions) {
	e := newEntry("", file, f.Stat, nil, 0)
	if cond.unchanged(e.etag, e.stat.ModTime) || x.Method == h1.MethodHead {
		h.sendIf(x, e, cond)
		return
	}
	if x.SendPrepared(200, e.head, e.tail) != nil {
		return
	}
	// Who does not get all must not take this for all, nor the next response for
	// the rest.
	switch n, err := x.SendFile(f, 0, f.Size); {
	case err != nil:
		x.Fault(exchange.Fault{Status: exchange.StatusGone, Why: "the client takes no more", Cause: err,
			Side: exchange.ClientSide, Step: "send response"})
	case n < f.Size:
		x.Fault(exchange.Fault{Status: 500, Why: "the file has become shorter",
			Side: exchange.ProxySide, Step: "send response"})
	}
}
