package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	abi "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// Config sizes a ring. The zero value is rejected by Open.
type Config struct {
	Entries     int // submission entries, a power of two; the bound on operations between two enters
	Completions int // completion entries, a power of two, at least Entries
}

// Ring is one io_uring with one issuer.
type Ring struct {
	fd int

	// Submission queue. The kernel reads head, we write tail.
	sqHead    *uint32
	sqFlags   *uint32
	sqTail    *uint32
	sqMask    uint32
	sqEntries uint32
	sqes      []abi.SubmissionQueueEntry64
	tail      uint32 // entries handed out; published to sqTail on enter
	submitted uint32 // entries the kernel has taken

	// Completion queue. The kernel writes tail, we write head.
	cqHead *uint32
	cqTail *uint32
	cqMask uint32
	cqes   []abi.CompletionQueueEvent16

	// What enter points the kernel at. Ring is heap memory, which Go does not
	// move, so the addresses stay good while the thread is in the kernel.
	arg geteventsArg
	ts  timespec

	buffers *Buffers

	sqMap, cqMap, sqeMap []byte

	enters    uint64
	overflows uint64
}

// Completion is one completion queue entry.
type Completion struct {
	UserData uint64
	Result   int32 // result, or a negated errno
	flags    uint32
}

// More reports whether the operation stays armed (IORING_CQE_F_MORE).
func (c Completion) More() bool { return c.flags&cqeFlagMore != 0 }

// MoreBytes reports that the socket held more than this receive took
// (IORING_CQE_F_SOCK_NONEMPTY, Linux 5.19).
func (c Completion) MoreBytes() bool { return c.flags&cqeFlagMoreBytes != 0 }

// Buffer returns the provided buffer that holds the received bytes, if any.
func (c Completion) Buffer() (id uint16, ok bool) {
	return uint16(c.flags >> cqeBufferShift), c.flags&cqeFlagBuffer != 0
}

// setupFlags: one issuer lets the kernel skip locks; deferred task work runs
// completions only inside our own enter, which batches them; SUBMIT_ALL goes on
// after a bad entry, so one failed operation does not hold back the others.
const setupFlags = setupSingleIssuer | setupDeferTaskrun | abi.IORING_SETUP_COOP_TASKRUN |
	abi.IORING_SETUP_SUBMIT_ALL | abi.IORING_SETUP_CQSIZE

// Open sets up a ring for the calling thread, which must be locked to its
// goroutine (runtime.LockOSThread) for as long as the ring lives.
func Open(cfg Config) (*Ring, error) {
	if cfg.Entries <= 0 || cfg.Completions < cfg.Entries {
		return nil, fmt.Errorf("uring: %d entries and %d completions: want 0 < entries <= completions",
			cfg.Entries, cfg.Completions)
	}
	params := abi.IOURingParams{Flags: setupFlags, CQEntries: uint32(cfg.Completions)}
	fd, err := abi.IOURingSetup(uint(cfg.Entries), &params)
	if err != nil {
		return nil, fmt.Errorf("uring: set up: %w", err)
	}
	r := &Ring{fd: fd}
	if err := r.mapQueues(&params); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// mapQueues maps the two queues and the entries, and fills the index array
// once with the identity: entry i of the array always names sqe i.
func (r *Ring) mapQueues(p *abi.IOURingParams) (err error) {
	sqBytes := int(p.SQOffset.Array + p.SQEntries*4)
	cqBytes := int(p.CQOffset.Cqes + p.CQEntries*uint32(unsafe.Sizeof(abi.CompletionQueueEvent16{})))
	sqeBytes := int(p.SQEntries * uint32(unsafe.Sizeof(abi.SubmissionQueueEntry64{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.sqMap, err = unix.Mmap(r.fd, int64(abi.IORING_OFF_SQ_RING), sqBytes, prot, flags); err != nil {
		return fmt.Errorf("uring: map submission queue: %w", err)
	}
	if r.cqMap, err = unix.Mmap(r.fd, int64(abi.IORING_OFF_CQ_RING), cqBytes, prot, flags); err != nil {
		return fmt.Errorf("uring: map completion queue: %w", err)
	}
	if r.sqeMap, err = unix.Mmap(r.fd, int64(abi.IORING_OFF_SQES), sqeBytes, prot, flags); err != nil {
		return fmt.Errorf("uring: map submission entries: %w", err)
	}
	r.sqHead = word(r.sqMap, p.SQOffset.Head)
	r.sqTail = word(r.sqMap, p.SQOffset.Tail)
	r.sqFlags = word(r.sqMap, p.SQOffset.Flags)
	r.sqMask = *word(r.sqMap, p.SQOffset.RingMask)
	r.sqEntries = p.SQEntries
	// The mappings outlive every pointer made here: Close unmaps last.
	r.sqes = unsafe.Slice((*abi.SubmissionQueueEntry64)(unsafe.Pointer(&r.sqeMap[0])), p.SQEntries)
	array := unsafe.Slice(word(r.sqMap, p.SQOffset.Array), p.SQEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	r.cqHead = word(r.cqMap, p.CQOffset.Head)
	r.cqTail = word(r.cqMap, p.CQOffset.Tail)
	r.cqMask = *word(r.cqMap, p.CQOffset.RingMask)
	r.cqes = unsafe.Slice((*abi.CompletionQueueEvent16)(unsafe.Pointer(&r.cqMap[p.CQOffset.Cqes])), p.CQEntries)
	r.tail = atomic.LoadUint32(r.sqTail)
	r.submitted = r.tail
	return nil
}

// word is the 32-bit kernel variable at off of a mapping. The kernel aligns
// these offsets to four bytes, and the mapping to a page.
func word(m []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&m[off])) }

// next returns a cleared submission slot. A full queue is submitted first,
// never grown: its size is our bound on work in flight per core, so growing
// it would trade a visible stall for invisible tail latency.
func (r *Ring) next() *abi.SubmissionQueueEntry64 {
	if r.tail-r.submitted == r.sqEntries {
		r.submitFull()
	}
	sqe := &r.sqes[r.tail&r.sqMask]
	sqe.Reset()
	r.tail++
	return sqe
}

// submitFull makes room in a full queue. The kernel takes entries even when
// the completion queue is full (it keeps the overflow, IORING_FEAT_NODROP), so
// only a lack of memory can refuse them; that passes, or the process is lost.
func (r *Ring) submitFull() {
	for try := 0; r.tail-r.submitted == r.sqEntries; try++ {
		if err := r.enter(0, 0, false); err != nil && try >= submitTriesMax {
			panic(fmt.Sprintf("uring: submit full queue: %v", err))
		}
	}
}

// submitTriesMax bounds the attempts to submit a full queue: 1,000 tries with
// the kernel answering EAGAIN each time is a machine without memory.
const submitTriesMax = 1000

// Submit gives the kernel everything queued, runs deferred completions, and
// does not wait.
func (r *Ring) Submit() error { return r.enter(0, 0, true) }

// Queued is how many operations the next Submit or Wait gives the kernel.
func (r *Ring) Queued() int { return int(r.tail - r.submitted) }

// Wait submits what is queued and waits until a completion is there or timeout
// has passed; timeout < 0 waits for ever. Mostly one system call does both. It
// returns nil also when a signal or the timeout ended the wait: the caller looks
// at the queue, not at the reason.
func (r *Ring) Wait(timeout time.Duration) error {
	if r.Ready() > 0 || timeout == 0 {
		return r.enter(0, 0, true)
	}
	if 0 < timeout && timeout <= attentive {
		return r.enter(1, timeout, true)
	}
	errno := r.call(1, attentive, true, syscall.RawSyscall6)
	if errno != unix.ETIME || r.Ready() > 0 {
		return enterError(errno)
	}
	if timeout > 0 {
		timeout -= attentive
	}
	return enterError(r.call(1, timeout, true, syscall.Syscall6))
}

// attentive is how long a wait goes without telling Go's scheduler. While it
// thinks that this thread runs Go code, its monitor leaves it alone; of a thread
// that is in a system call, and has not changed its goroutine for 10 ms as ours
// never does, it takes the processor at each look, every 20 us, which was 11 % of
// a busy process (proxy/design/0004). Whoever stops the world ends the wait by a
// signal. Longer waits are for the idle, whose thread must not look busy.
const attentive = 5 * time.Millisecond

// enter calls io_uring_enter for what is over soon.
func (r *Ring) enter(wait uint32, timeout time.Duration, events bool) error {
	return enterError(r.call(wait, timeout, events, syscall.RawSyscall6))
}

// call is the one place that calls io_uring_enter.
func (r *Ring) call(wait uint32, timeout time.Duration, events bool, by call6) syscall.Errno {
	if r.buffers != nil {
		r.buffers.publish()
	}
	atomic.StoreUint32(r.sqTail, r.tail)
	var flags, arg, argSize uintptr
	if events {
		flags = uintptr(abi.IORING_ENTER_FLAGS_GETEVENTS)
	}
	if wait > 0 && timeout > 0 {
		r.ts = timespec{sec: int64(timeout / time.Second), nsec: int64(timeout % time.Second)}
		r.arg.timespec = uint64(uintptr(unsafe.Pointer(&r.ts)))
		flags |= enterExtArg
		arg, argSize = uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg)
	}
	r.enters++
	n, _, errno := by(abi.SYS_IO_URING_ENTER, uintptr(r.fd),
		uintptr(r.tail-r.submitted), uintptr(wait), flags, arg, argSize)
	if r.Ready() == len(r.cqes) && atomic.LoadUint32(r.sqFlags)&sqOverflow != 0 {
		r.overflows++
	}
	if errno == 0 {
		r.submitted += uint32(n)
		return 0
	}
	// With an error the kernel may still have taken entries; its head knows.
	r.submitted = atomic.LoadUint32(r.sqHead)
	return errno
}

// call6 is a system call: the raw form, or the one that tells the Go scheduler
// that the thread may block, so that others have its processor meanwhile.
type call6 func(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, err syscall.Errno)

// enterError is what of a result is an error.
func enterError(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EINTR: // a signal, for Go mostly its own preemption: look again
		return nil
	case unix.ETIME: // the timeout passed
		return nil
	case unix.EBUSY, unix.EAGAIN: // completions overflowed or no memory for requests: reap first
		return nil
	case unix.EEXIST:
		return fmt.Errorf("uring: entered by another thread than the one that opened it: %w", errno)
	}
	return fmt.Errorf("uring: enter: %w", errno)
}

// Ready is the number of completions that Next can hand out now.
func (r *Ring) Ready() int { return int(atomic.LoadUint32(r.cqTail) - *r.cqHead) }

// Next takes the oldest completion.
func (r *Ring) Next() (Completion, bool) {
	head := *r.cqHead // only this thread writes it
	if head == atomic.LoadUint32(r.cqTail) {
		return Completion{}, false
	}
	cqe := &r.cqes[head&r.cqMask]
	c := Completion{UserData: cqe.UserData(), Result: cqe.Result(), flags: cqe.Flags()}
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}

// Enters counts the system calls made so far.
func (r *Ring) Enters() uint64 { return r.enters }

// Overflows counts those of them that left more completions than the queue holds:
// the kernel keeps the rest, at the price of an allocation for each.
func (r *Ring) Overflows() uint64 { return r.overflows }

// SetThreadCPUs says on which CPUs the kernel may run the threads that carry out
// operations which wait, such as ReadFile (IORING_REGISTER_IOWQ_AFF, 5.14).
func (r *Ring) SetThreadCPUs(cpus *unix.CPUSet) error {
	err := abi.IOURingRegister(r.fd, registerIOWQAff, unsafe.Pointer(cpus), uint32(unsafe.Sizeof(*cpus)))
	if err != nil {
		return fmt.Errorf("uring: set the CPUs of the kernel's threads: %w", err)
	}
	return nil
}

// Close unmaps the queues and closes the ring. The kernel cancels what is
// still in flight; the caller has waited for all of it (rule R1), because
// memory of an operation is only safe to reuse after its completion.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd = -1
	for _, m := range [][]byte{r.sqeMap, r.cqMap, r.sqMap} {
		if m != nil {
			err = errors.Join(err, unix.Munmap(m))
		}
	}
	if r.buffers != nil {
		err = errors.Join(err, r.buffers.unmap())
	}
	invariant.That(err == nil, "ring did not close")
	return err
}
