package loop

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

const (
	// readAheadBytes is how much one hint may ask for: the kernel cuts longer
	// ones to the device's read-ahead, which is 128 KiB where nobody set it.
	readAheadBytes = 128 << 10
	// sampleBytes is how far apart pages are looked at where the kernel does not
	// tell us how many of them there are. A look takes 0.6 us, sending as much 5 us.
	// Pages come and go in runs; one that is missing alone costs its wait.
	sampleBytes = 128 << 10
)

// probe asks whether pages of a file are in memory, without waiting for those
// that are not. It is of the file, so that asking allocates nothing.
type probe struct {
	page      [1]byte
	span      unix.CachestatRange
	pages     unix.Cachestat_t
	uncounted bool // cachestat is not for us: it tells a file's pages to who might write it
}

var pageBytes = int64(os.Getpagesize())

// newFile is of a file that is sent from the page cache. Its reads are random,
// so that sending starts no read-ahead on the worker: who brings a piece in does.
func newFile(f *os.File, stat Stat) *File {
	fd := int(f.Fd())
	// A filesystem without hints has none of the read-ahead either.
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM)
	return &File{Stat: stat, os: f, fd: fd}
}

// stat is what the kernel knows of the open file by now. Over a network it may know
// better, by Look above all, but never asks: fstat would wait on the worker's thread
// for a server that may have gone.
func (f *File) stat() (Stat, error) {
	var sys unix.Statx_t
	if err := uring.StatNow(f.fd, &sys); err != nil {
		return Stat{}, err // before Linux 4.11, and under old seccomp filters
	}
	modified := time.Unix(sys.Mtime.Sec, int64(sys.Mtime.Nsec))
	changed := time.Unix(sys.Ctime.Sec, int64(sys.Ctime.Nsec))
	return newStat(uint32(sys.Mode), int64(sys.Size), sys.Ino, modified, changed), nil
}

// inMemory reports that sending n bytes from off would not wait for the disk. A
// single look settles most of it: where pages are missing, or are on their way,
// the last one is.
func (f *File) inMemory(off, n int64) bool {
	if n = min(n, f.Size-off); n <= 0 {
		return true
	}
	if !f.look(off + n - 1) {
		return false
	}
	if f.probe.uncounted {
		return f.sampled(off, n)
	}
	first := off / pageBytes * pageBytes
	f.probe.span = unix.CachestatRange{Off: uint64(first), Len: uint64(off + n - first)}
	if uring.Cachestat(f.fd, &f.probe.span, &f.probe.pages) != nil {
		f.probe.uncounted = true // and so say kernels before 6.5, and seccomp filters
		return f.sampled(off, n)
	}
	return f.probe.pages.Cache >= uint64((off+n-first+pageBytes-1)/pageBytes)
}

// counted reports that inMemory knows of each page, and not of samples.
func (f *File) counted() bool { return !f.probe.uncounted }

// sampled looks at some pages between off and off+n.
func (f *File) sampled(off, n int64) bool {
	for at := off; at < off+n; at += sampleBytes {
		if !f.look(at) {
			return false
		}
	}
	return true
}

// look reports that one byte can be read at once. A filesystem that does not
// know how to answer (overlayfs, NFS) says EOPNOTSUPP: then each piece is brought in.
// Where the file has become shorter there is nothing to wait for.
func (f *File) look(at int64) bool { return f.readByte(at) == nil }

// tells reports that look knows better than to take everything for cold.
func (f *File) tells() bool { return f.readByte(0) != unix.EOPNOTSUPP }

// readByte reads one byte, if that is possible without a wait.
func (f *File) readByte(at int64) error {
	_, err := uring.ReadNow(f.fd, f.probe.page[:], at)
	return err
}

// readNow reads what is in memory.
func (f *File) readNow(p []byte, off int64) int {
	n, err := uring.ReadNow(f.fd, p, off)
	if err != nil {
		return 0
	}
	return n
}

// passBuffers are what bringIn reads to. Reading everything costs a copy that
// nobody needs, and is the one sure way to have waited for every page; a byte of
// each page costs more, as a page costs a system call then.
var passBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// bringIn reads n bytes from off into the page cache, and has the kernel begin
// with as many behind them. It blocks; the ring does the same without a goroutine.
func (f *File) bringIn(off, n int64) {
	for at := off; at < off+2*n && at < f.Size; at += readAheadBytes {
		_ = unix.Fadvise(f.fd, at, min(readAheadBytes, off+2*n-at), unix.FADV_WILLNEED)
	}
	buffer := passBuffers.Get().(*[64 << 10]byte)
	defer passBuffers.Put(buffer)
	for end := off + n; off < end; {
		m, err := f.os.ReadAt(buffer[:min(int64(len(buffer)), end-off)], off)
		if m == 0 || err != nil {
			return // sending meets the same end, and tells it
		}
		off += int64(m)
	}
}
