// Package static serves the files of one directory.
//
// It refuses to lead out of the directory, to list it, to show hidden files and
// to serve what is not a regular file. It opens nothing itself: package loop
// does, without stopping the worker. It compresses nothing either: a file may have
// siblings that somebody compressed before.
//
// A Handler belongs to one worker. What its cache holds never changes: a
// changed file gets a new entry.
package static

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// Config is what a Handler serves.
type Config struct {
	Dir           *loop.Dir
	Index         string // file that stands for a directory
	CacheBytes    int64  // this worker's share
	Precompressed bool   // a file's siblings .br, .zst and .gz stand for it
}

const (
	// entryBytesMax is the largest file that is cached; larger ones are sent from
	// the page cache by sendfile, which is cheaper from there on, and costs the same
	// where others wear the machine's memory out: it copies nothing (design 0007).
	entryBytesMax = 64 << 10
	// blindBytesMax is the same for files of overlayfs, tmpfs and NFS: each piece of
	// those is copied before it is sent, so that sending waits for no disk.
	blindBytesMax = 1 << 20
	// freshFor is how long a cached file is believed to be unchanged.
	freshFor = time.Second
)

// Handler answers requests for files.
type Handler struct {
	config Config
	cache  cache
	name   []byte // scratch: the canonical name of the request at hand
	closer bool   // a task closes the cache's files that rest
}

// New makes the handler of one worker.
func New(cfg Config) *Handler {
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
	if known := h.cache.find(name); known != nil && fresh(x, known) {
		if e := known.choose(r); e != nil && e.inMemory {
			x.Stats.CacheHits.Add(1)
			send(x, e)
			return
		}
	}
	h.load(x, string(name))
}

func fresh(x *exchange.Exchange, r *resource) bool { return x.Loop.Now() < r.checked.After(freshFor) }

// load answers from the disk, and remembers a small file. From here on the
// request waits, so its head is gone: what is needed of it is taken first.
func (h *Handler) load(x *exchange.Exchange, name string) {
	inHead := takeAsked(x.Request)
	asked := inHead.clone()
	query := string(x.Request.Query)
	hasQuery := x.Request.Query != nil
	x.ReleaseHead()
	x.Stats.CacheMisses.Add(1)
	defer func() { x.Stats.CacheBytes.Set(h.cache.bytes) }()

	if e := h.recheck(x, name, &asked); e != nil {
		if e.inMemory {
			sendAsked(x, e, nil, &asked)
			return
		}
		if f := h.cache.reuse(e); f != nil {
			h.sendOpen(x, name, e, f, &asked)
			return
		}
	}
	file := name
	if file == "" || file[len(file)-1] == '/' {
		file += h.config.Index
	}
	now := x.Loop.Now() // what is seen is no older than this
	var found found
	fetch := func() { found = h.config.fetch(file, asked.codings) }
	x.Loop.Off(fetch)
	if loop.Scarce(found.err) && len(h.cache.resting) > 0 {
		h.cache.closeResting(x.Loop.Now() + 1) // all of them
		x.Loop.Off(fetch)
	}
	switch stat := &found.versions[found.coding]; {
	case found.err != nil:
		failOpen(x, found.err)
	case stat.Dir && file == name: // not an index that is a directory
		to := location(name, query, hasQuery)
		text := []byte("301 Moved Permanently: a directory ends with a slash\n")
		x.Answer(301, "text/plain; charset=utf-8", text, "Location", to)
	case !stat.Regular:
		x.Fail(404, "there is no such file")
	default:
		siblings := found.versions.siblings()
		r := &resource{name: name, file: file, versions: found.versions, siblings: siblings, checked: now}
		r.adopt(h.cache.get(name))
		e := r.entries[found.coding]
		if e == nil || e.inMemory == (found.file != nil) {
			e = newEntry(file, found.coding, siblings != 0, *stat, found.bytes)
			r.entries[found.coding] = e
		}
		h.cache.add(r)
		if found.file != nil {
			h.sendOpen(x, name, e, found.file, &asked)
		} else {
			sendAsked(x, e, nil, &asked)
		}
	}
}

// sendOpen answers from an open file, which rests then until the next request for
// it.
func (h *Handler) sendOpen(x *exchange.Exchange, name string, e *entry, f *loop.File, a *asked) {
	defer func() {
		if r := h.cache.get(name); r == nil || !slices.Contains(r.entries[:], e) {
			f.Close() // it has changed, or is not to be remembered
			return
		}
		h.cache.rest(e, f, x.Loop.Now())
		if !h.closer {
			h.closer = true
			l := x.Loop
			l.Go(func() { h.closeResting(l) })
		}
	}()
	sendAsked(x, e, f, a)
}

// closeResting closes files that nobody has asked for in a while: their disk may be
// wanted for something else, once they have no name any more. All of them close when
// the worker drains, which would wait for this.
func (h *Handler) closeResting(l loop.Loop) {
	defer func() { h.closer = false }()
	for len(h.cache.resting) > 0 {
		since := l.Now()
		l.Doze(freshFor)
		if l.Now() < since.After(freshFor) { // the worker ends, and nobody sleeps
			since = l.Now() + 1
		}
		h.cache.closeResting(since)
	}
}

// recheck compares what the cache knows of a name with the disk, and forgets it
// if something has changed. It returns the entry for this request, if that is in
// memory.
func (h *Handler) recheck(x *exchange.Exchange, name string, a *asked) *entry {
	r := h.cache.get(name)
	if r == nil {
		return nil
	}
	if !fresh(x, r) {
		// Others of this worker may serve it as it is meanwhile.
		r.checked = x.Loop.Now()
		var now versions
		var err error
		x.Loop.Off(func() { now, err = h.config.look(r.file) })
		if err != nil || !now.same(&r.versions) {
			if h.cache.get(name) == r {
				h.cache.drop(name)
			}
			return nil
		}
	}
	return r.entries[chooseCoding(a.codings, r.siblings)]
}

// location is the path of a directory, with its slash, for this server: it does
// not begin with two slashes, as no name begins with one.
func location(name, query string, hasQuery bool) string {
	path := append(appendEscaped([]byte{'/'}, name), '/')
	if hasQuery {
		path = append(append(path, '?'), query...)
	}
	return string(path)
}

func failOpen(x *exchange.Exchange, err error) {
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.Fail(403, "the server may not read this file")
	case loop.NotFound(err):
		x.Fail(404, "there is no such file")
	case loop.Scarce(err):
		x.Stats.Scarcities.Add(1)
		x.Fault(exchange.Fault{Status: 503, Why: "this server has no room for another file", Side: exchange.ProxySide,
			Step: "open the file", Cause: err}, "Retry-After", "1")
	default:
		x.Fail(500, "the server cannot read this file")
	}
}
