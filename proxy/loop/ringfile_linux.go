package loop

import (
	"io"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

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
