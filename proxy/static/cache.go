package static

import (
	"slices"
	"strconv"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// entry is one representation of a file, with its response prepared. Nothing of it
// changes after newEntry: sends that are under way refer to its memory.
type entry struct {
	stat loop.Stat // of the file that it is
	etag string
	kind string // its Content-Type

	inMemory bool // the whole body is in tail; else it is sent from an open file

	head          []byte // status line and fields of a 200, without Date and Connection
	common        []byte // part of head: the fields that a 206 has, too
	headUnchanged []byte // status line and fields of a 304
	tail          []byte // empty line, then the body
}

// newEntry prepares the responses for a file, or the sibling of it that has a
// coding. varies says that the file has siblings. body may be nil for one that is
// not in memory.
func newEntry(file string, c coding, varies bool, stat loop.Stat, body []byte) *entry {
	e := &entry{stat: stat, kind: typeOf(file), inMemory: body != nil}
	tag := strconv.FormatInt(stat.Size, 16) + "-" + strconv.FormatInt(stat.ModTime.UnixNano(), 16)
	if c != identity {
		tag += "-" + c.String() // never that of the file, whatever its size and time
	}
	e.etag = `"` + tag + `"`

	e.headUnchanged = e.appendVersion(h1.AppendStatusLine(nil, 304), varies)
	e.head = h1.AppendStatusLine(nil, 200)
	line := len(e.head)
	e.head = e.appendVersion(e.head, varies)
	if c != identity {
		e.head = h1.AppendField(e.head, "Content-Encoding", c.String())
	}
	common := len(e.head)
	e.head = h1.AppendField(e.head, "Content-Type", e.kind)
	e.head = h1.AppendField(e.head, "Accept-Ranges", "bytes")
	e.head = h1.AppendContentLength(e.head, stat.Size)
	e.common = e.head[line:common]

	e.tail = make([]byte, 0, 2+len(body))
	e.tail = append(append(e.tail, "\r\n"...), body...)
	return e
}

// appendVersion appends the fields that say which version this is.
func (e *entry) appendVersion(b []byte, varies bool) []byte {
	b = h1.AppendField(b, "Server", "atlas")
	b = append(b, "Last-Modified: "...)
	b = h1.AppendDate(b, e.stat.ModTime.Unix())
	b = append(b, "\r\n"...)
	b = h1.AppendField(b, "ETag", e.etag)
	if varies {
		b = h1.AppendField(b, "Vary", "Accept-Encoding")
	}
	return b
}

// bytes is what an entry is charged for.
func (e *entry) bytes() int64 {
	const overhead = 300
	return int64(len(e.head)+len(e.headUnchanged)+len(e.tail)) + overhead
}

// versions are a file and those of its siblings that stand for it, as they were
// at one moment. Where there is none, nothing is regular.
type versions [codings]loop.Stat

func (v *versions) same(w *versions) bool {
	for c := range v {
		if !v[c].Same(w[c]) {
			return false
		}
	}
	return true
}

// siblings are the codings that there are.
func (v *versions) siblings() (s codingSet) {
	for c := brotli; c < codings; c++ {
		if v[c].Regular {
			s |= 1 << c
		}
	}
	return s
}

// resource is what a name stands for: one file in up to four representations, of
// which those are known that were asked for. Only checked and used change.
type resource struct {
	name     string // canonical name of the request
	file     string // name in the directory
	versions versions
	siblings codingSet
	entries  [codings]*entry // nil: not known, or not there

	checked loop.Instant // when it was last compared with the disk
	used    bool         // since the clock hand passed
	place   int          // in cache.clock
}

// choose picks the representation for a request. nil: it is not known.
func (r *resource) choose(head *h1.Request) *entry {
	if r.siblings == 0 || !head.Has(h1.KeyAcceptEncoding) {
		return r.entries[identity]
	}
	return r.entries[chooseCoding(joined(head, h1.KeyAcceptEncoding), r.siblings)]
}

// adopt takes what an older resource of the same versions knows of them.
func (r *resource) adopt(old *resource) {
	if old == nil || !r.versions.same(&old.versions) {
		return
	}
	for c, e := range old.entries {
		if r.entries[c] == nil {
			r.entries[c] = e
		}
	}
}

// bytes is what a resource is charged for: its memory and a share of the map.
func (r *resource) bytes() int64 {
	const overhead = 600
	sum := int64(overhead + len(r.name) + len(r.file))
	for _, e := range r.entries {
		if e != nil {
			sum += e.bytes()
		}
	}
	return sum
}

// cache is a worker's bounded memory of small files. The least recently used
// go first, approximately: a clock hand gives each one that was used since it
// last passed another round, so that a hit costs one store.
type cache struct {
	bytesMax int64
	bytes    int64
	byName   map[string]*resource
	clock    []*resource
	hand     int
	resting  []resting // oldest first
}

// restingMax is how many files stay open for a worker while nobody reads them.
const restingMax = 32

// resting is a file too large for memory that is open while nobody reads it: the
// next request need not look for it, which costs as much as sending 100 KB of it.
// It belongs to one request at a time, so those at once have one each.
type resting struct {
	entry *entry
	file  *loop.File
	since loop.Instant
}

// find looks up a name without copying it.
func (c *cache) find(name []byte) *resource {
	r := c.byName[string(name)]
	if r != nil {
		r.used = true
	}
	return r
}

func (c *cache) get(name string) *resource { return c.byName[name] }

// add puts a resource in, in place of an older one of its name, and makes room.
// It may not fit: then there is none of its name.
func (c *cache) add(r *resource) {
	c.drop(r.name)
	bytes := r.bytes()
	if bytes > c.bytesMax {
		return
	}
	for c.bytes+bytes > c.bytesMax {
		c.evict()
	}
	if c.byName == nil {
		c.byName = make(map[string]*resource)
	}
	c.byName[r.name] = r
	r.place = len(c.clock)
	c.clock = append(c.clock, r)
	c.bytes += bytes
}

// evict drops the next entry that was not used for a round. The second round
// finds one at the latest.
func (c *cache) evict() {
	for {
		c.hand %= len(c.clock)
		r := c.clock[c.hand]
		if !r.used {
			c.drop(r.name)
			return
		}
		r.used = false
		c.hand++
	}
}

func (c *cache) drop(name string) {
	r := c.byName[name]
	if r == nil {
		return
	}
	delete(c.byName, name)
	last := len(c.clock) - 1
	c.clock[r.place] = c.clock[last]
	c.clock[r.place].place = r.place
	c.clock[last] = nil
	c.clock = c.clock[:last]
	c.bytes -= r.bytes()
}

// reuse takes the file of an entry that came to rest last. nil: there is none, or
// it has changed since it was opened.
func (c *cache) reuse(e *entry) *loop.File {
	for i := len(c.resting) - 1; i >= 0; i-- {
		if c.resting[i].entry != e {
			continue
		}
		f := c.resting[i].file
		c.resting = slices.Delete(c.resting, i, i+1)
		if f.Unchanged() {
			return f
		}
		f.Close()
		return nil
	}
	return nil
}

// rest takes a file back. Where there are too many it closes the oldest.
func (c *cache) rest(e *entry, f *loop.File, now loop.Instant) {
	if len(c.resting) == restingMax {
		c.resting[0].file.Close()
		c.resting = slices.Delete(c.resting, 0, 1)
	}
	c.resting = append(c.resting, resting{e, f, now})
}

// closeResting closes the files that have rested since before an instant.
func (c *cache) closeResting(before loop.Instant) {
	n := 0
	for n < len(c.resting) && c.resting[n].since < before {
		c.resting[n].file.Close()
		n++
	}
	c.resting = slices.Delete(c.resting, 0, n)
}
