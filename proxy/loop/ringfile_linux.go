package loop

import (
	"io"
	"time"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

// unsentBytes is how much of a file a socket takes that the kernel has not sent yet,
// TCP_NOTSENT_LOWAT (3.12). Without it that is up to 4 MB: a client that reads slowly
// pins them, and where one reads fast an acknowledgement sends them all, on this core
// and before anybody else has a turn (design 0007).
const unsentBytes = 512 << 10

// SendFile sends by sendfile, a bounded piece at a time. On a full socket it
// waits for room by a poll operation: splice through the ring would take a
// kernel thread for each waiting direction (rule R10). What is not in memory is
// brought in first: sendfile would wait for the disk on the worker's thread.
func (c *ringConn) SendFile(f *File, off, n int64) (int64, error) {
	var done, warm int64 // off+warm is up to where the file is known to be in memory
	seen := false        // it was there when we looked, and did not have to be brought in
	turn := false        // the next piece has its turn
	if c.out != nil {
		c.loop.Yield() // a send that was on its way may have taken the head along meanwhile
		if piece := min(n, warmFileBytes); c.loop.remembers(f, off, piece) && c.sendAhead() {
			warm, seen, turn = piece, true, true
		} else if c.out != nil {
			c.flush()
		}
	}
	if err := c.awaitSent(); err != nil {
		return 0, err
	}
	if n > sendFileBytes && !c.bounded && !c.closing {
		c.bounded = true
		// What a socket cannot be told, it does without.
		_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	}
	c.filing = true
	defer func() { c.filing = false }()
	for done < n {
		if done >= warm {
			var piece int64
			piece, seen = c.loop.warmFile(f, off+done, n-done)
			warm = done + piece
		}
		if !turn {
			c.loop.Yield()
		}
		turn = false
		if err := c.sendFileReady(); err != nil {
			return done, err
		}
		at, size := off+done, int(min(warm-done, sendFileBytes))
		var m int
		var err error
		if seen && f.counted() {
			m, err = uring.Sendfile(c.fd, f.fd, at, size)
		} else {
			m, err = unix.Sendfile(c.fd, f.fd, &at, size) // it may wait after all, and tells Go
		}
		switch {
		case m > 0:
			done += int64(m)
		case err == unix.EAGAIN:
			before := c.loop.now
			c.awaitRoom()
			if c.loop.now >= before.After(warmFor) {
				warm = done
			}
		case err == unix.EINTR:
		case err != nil:
			c.failSend(err)
			return done, err
		default:
			return done, nil // the file ends here
		}
	}
	return done, nil
}

// warmFile makes sure that a piece at the beginning of n bytes is in memory, and
// returns its length, and whether it was there.
func (l *ringLoop) warmFile(f *File, off, n int64) (piece int64, seen bool) {
	piece = min(n, warmFileBytes)
	if seen = l.remembers(f, off, piece); !seen {
		l.bringIn(f, off, piece)
	}
	return piece, seen
}

// rememberedFor is how long a small file that was in memory as a whole is believed to
// be there: what is asked for so often goes last. Asking is two system calls.
const rememberedFor = 100 * time.Millisecond

// remembers asks whether a piece is in memory, or knows that the whole file was.
func (l *ringLoop) remembers(f *File, off, n int64) bool {
	if f.warm != 0 && l.now < f.warm.After(rememberedFor) {
		return true
	}
	f.warm = 0
	seen := f.inMemory(off, n)
	if seen && off == 0 && n == f.Size {
		f.warm = l.now
	}
	return seen
}

// sendFileReady fails sending for good where it may not go on: what would follow
// would be taken for the rest of the file.
func (c *ringConn) sendFileReady() error {
	if err := c.sendable(); err != nil {
		return err
	}
	if err := c.cutSend(); err != nil {
		c.failSend(err)
		return err
	}
	return nil
}

// awaitRoom waits until the socket takes more, or sendFileReady has to be asked.
func (c *ringConn) awaitRoom() {
	c.polling = true
	c.ops++
	c.loop.ring.Poll(c.fd, unix.POLLOUT, c.userData(opPoll))
	for cut := false; c.polling; {
		if !cut && c.cut(c.writeDeadline) != nil {
			cut = true
			c.cancel(opPoll)
		}
		c.waitWriter()
	}
}

// fileOp is one wait for the disk: operations on a file that threads of the
// kernel's carry out. Those do not count among Go's threads: goroutines that block
// take Ps, of which the worker has to get one back after each of its own waits, and
// with tens of them that took up to a quarter of a second. The kernel bounds its
// threads by four a core; what is more waits in its queue.
type fileOp struct {
	task   *task
	left   int // operations that the kernel still has
	result int32
}

// bringIn reads a piece of a file into memory, and has the kernel begin with the
// piece behind it. It waits. Reading costs a copy that nobody needs, and is the one
// sure way to have waited for every page; the bytes of all pieces of the worker go
// to the same place, where nobody looks.
func (l *ringLoop) bringIn(f *File, off, n int64) {
	if l.waste == nil {
		l.waste = make([]byte, warmFileBytes)
	}
	l.counters.Cold.Add(1)
	slot, op := l.takeFileOp()
	op.left = 1
	l.ring.ReadFile(f.fd, l.waste[:n], off, userData(opFile, 0, slot))
	if off+n < f.Size {
		op.left++
		l.ring.Fadvise(f.fd, off+n, uint32(n), unix.FADV_WILLNEED, userData(opFileHint, 0, slot))
	}
	l.awaitFile(slot, op)
}

// readFile reads until p is full or the file ends. It waits.
func (l *ringLoop) readFile(f *File, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		slot, op := l.takeFileOp()
		op.left = 1
		l.ring.ReadFile(f.fd, p[n:], off+int64(n), userData(opFile, 0, slot))
		switch result := l.awaitFile(slot, op); {
		case result > 0:
			n += int(result)
		case result == 0:
			return n, io.EOF
		case result != -int32(unix.EINTR):
			return n, unix.Errno(-result)
		}
	}
	return n, nil
}

func (l *ringLoop) takeFileOp() (slot uint32, op *fileOp) {
	if n := len(l.fileOpsFree); n > 0 {
		slot = l.fileOpsFree[n-1]
		l.fileOpsFree = l.fileOpsFree[:n-1]
	} else {
		slot = uint32(len(l.fileOps))
		l.fileOps = append(l.fileOps, new(fileOp))
	}
	op = l.fileOps[slot]
	op.task = l.current
	return slot, op
}

// awaitFile waits for the last completion (rule R1), whatever happens to the
// connection meanwhile, and returns what was read.
func (l *ringLoop) awaitFile(slot uint32, op *fileOp) int32 {
	for op.left > 0 {
		l.suspend()
	}
	op.task = nil
	l.fileOpsFree = append(l.fileOpsFree, slot)
	return op.result
}

// fileDone is a completion of a file operation.
func (l *ringLoop) fileDone(e uring.Completion, slot uint32, read bool) {
	op := l.fileOps[slot]
	op.left--
	if read {
		op.result = e.Result
	}
	if op.left == 0 {
		l.wake(op.task)
	}
}
