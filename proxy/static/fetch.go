package static

import "atlas/proxy/loop"

// The functions of this file block: they run on a helper, and touch nothing of
// the worker.

// found is what a helper found of a file.
type found struct {
	versions versions
	coding   coding     // of the representation that was chosen
	bytes    []byte     // its content, or
	file     *loop.File // it is open, as it is too large for memory
	err      error
}

// largest is up to which size a file is worth caching, and up to which one of a
// filesystem that does not tell what is in memory: at most a quarter of the cache,
// so that one file cannot push out all others.
func (c *Config) largest() (most, blind int64) {
	return min(entryBytesMax, c.CacheBytes/4), min(blindBytesMax, c.CacheBytes/4)
}

// look tells what there is of a file now. A sibling that cannot be looked at is as
// good as none.
func (c *Config) look(file string) (v versions, err error) {
	if v[identity], err = c.Dir.Look(file); err != nil || !v[identity].Regular || !c.Precompressed {
		return v, err
	}
	for coding := brotli; coding < codings; coding++ {
		sibling, err := c.Dir.Look(file + suffixes[coding])
		if err == nil && sibling.Regular && !older(sibling.ModTime, v[identity].ModTime) {
			v[coding] = sibling
		}
	}
	return v, nil
}

// fetch looks for a file, chooses the representation that a client wants, and
// reads or opens it.
func (c *Config) fetch(file string, accept []byte) (f found) {
	if f.versions, f.err = c.look(file); f.err != nil || !f.versions[identity].Regular {
		return f
	}
	most, blind := c.largest()
	for {
		f.coding = chooseCoding(accept, f.versions.siblings())
		f.versions[f.coding], f.bytes, f.file, f.err = c.Dir.Load(file+suffixes[f.coding], most, blind)
		if f.coding == identity || f.err == nil && f.versions[f.coding].Regular {
			return f
		}
		// It has gone since, or may not be read: the next best will do.
		f.versions[f.coding] = loop.Stat{}
	}
}
