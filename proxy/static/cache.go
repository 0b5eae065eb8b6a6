package static

import (
	"mime"
	"path"
	"strconv"
	"time"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// entry is a file in memory with its response prepared. Nothing but checked and
// used changes after newEntry: sends that are under way refer to its memory.
type entry struct {
	name string // canonical name of the request
	file string // name in the directory
	stat loop.Stat

	head          []byte // status line and fields of a 200, without Date and Connection
	headUnchanged []byte // the same of a 304
	tail          []byte // empty line, then the body
	etag          string

	checked loop.Instant // when it was last compared with the disk
	used    bool         // since the clock hand passed
	place   int          // in cache.clock
}

// newEntry prepares the responses for a file. body may be nil for one that is
// not cached.
func newEntry(name, file string, stat loop.Stat, body []byte, now loop.Instant) *entry {
	e := &entry{name: name, file: file, stat: stat, checked: now}
	e.etag = `"` + strconv.FormatInt(stat.Size, 16) + "-" + strconv.FormatInt(stat.ModTime.UnixNano(), 16) + `"`

	common := h1.AppendField(nil, "Server", "atlas")
	common = append(common, "Last-Modified: "...)
	common = h1.AppendDate(common, stat.ModTime.Unix())
	common = append(common, "\r\n"...)
	common = h1.AppendField(common, "ETag", e.etag)

	kind := mime.TypeByExtension(path.Ext(file))
	if kind == "" {
		kind = "application/octet-stream"
	}
	e.head = append(h1.AppendStatusLine(nil, 200), common...)
	e.head = h1.AppendField(e.head, "Content-Type", kind)
	e.head = h1.AppendContentLength(e.head, stat.Size)
	e.headUnchanged = append(h1.AppendStatusLine(nil, 304), common...)

	e.tail = make([]byte, 0, 2+len(body))
	e.tail = append(append(e.tail, "\r\n"...), body...)
	return e
}

// bytes is what an entry is charged for: its memory and a share of the map.
func (e *entry) bytes() int64 {
	const overhead = 300
	return int64(len(e.head)+len(e.headUnchanged)+len(e.tail)+2*len(e.name)) + overhead
}

// cache is a worker's bounded memory of small files. The least recently used
// go first, approximately: a clock hand gives each entry that was used since it
// last passed another round, so that a hit costs one store.
type cache struct {
	bytesMax int64
	bytes    int64
	byName   map[string]*entry
	clock    []*entry
	hand     int
}

// find looks up a name without copying it.
func (c *cache) find(name []byte) *entry {
	e := c.byName[string(name)]
	if e != nil {
		e.used = true
	}
	return e
}

func (c *cache) get(name string) *entry { return c.byName[name] }

// add puts an entry in, in place of an older one of its name, and makes room.
func (c *cache) add(e *entry) {
	c.drop(e.name)
	if e.bytes() > c.bytesMax {
		return
	}
	for c.bytes+e.bytes() > c.bytesMax {
		c.evict()
	}
	if c.byName == nil {
		c.byName = make(map[string]*entry)
	}
	c.byName[e.name] = e
	e.place = len(c.clock)
	c.clock = append(c.clock, e)
	c.bytes += e.bytes()
}

// evict drops the next entry that was not used for a round. The second round
// finds one at the latest.
func (c *cache) evict() {
	for {
		c.hand %= len(c.clock)
		e := c.clock[c.hand]
		if !e.used {
			c.drop(e.name)
			return
		}
		e.used = false
		c.hand++
	}
}

func (c *cache) drop(name string) {
	e := c.byName[name]
	if e == nil {
		return
	}
	delete(c.byName, name)
	last := len(c.clock) - 1
	c.clock[e.place] = c.clock[last]
	c.clock[e.place].place = e.place
	c.clock[last] = nil
	c.clock = c.clock[:last]
	c.bytes -= e.bytes()
}

// conditions are the validators that a request came with, copied out of it.
type conditions struct {
	noneMatch     []byte
	modifiedSince []byte
}

func takeConditions(r *h1.Request) conditions {
	var cond conditions
	if r.Has(h1.KeyIfNoneMatch) {
		cond.noneMatch = append([]byte{}, r.Value(h1.KeyIfNoneMatch)...)
	}
	if r.Has(h1.KeyIfModifiedSince) {
		cond.modifiedSince = append([]byte{}, r.Value(h1.KeyIfModifiedSince)...)
	}
	return cond
}

// unchanged reports that the client has this version already: RFC 9110 section
// 13.2.2, where an entity tag outranks a date.
func (cond conditions) unchanged(etag string, modified time.Time) bool {
	if cond.noneMatch != nil {
		return matches(cond.noneMatch, etag)
	}
	if cond.modifiedSince != nil {
		since, ok := h1.ParseDate(cond.modifiedSince, time.Now().Unix())
		return ok && modified.Unix() <= since
	}
	return false
}

// matches compares weakly, as If-None-Match does (RFC 9110 section 13.1.2).
func matches(list []byte, etag string) bool {
	for l := h1.Items(list); l.Next(); {
		item := string(l.Item)
		if item == "*" || item == etag || item == "W/"+etag {
			return true
		}
	}
	return false
}
