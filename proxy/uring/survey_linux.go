package uring

import (
	"errors"
	"runtime"
	"unsafe"

	abi "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// errUntried stands for what needs something that is missing.
var errUntried = errors.New("not tried: it needs what is missing above")

// Survey is Probe for who wants to know everything: each feature and operation that
// Ring is built on, with what the kernel answers in Err, which is nil where it is
// there.
func Survey() []Unavailable {
	answer := make(chan []Unavailable)
	go func() {
		runtime.LockOSThread() // see Probe
		answer <- survey()
	}()
	return <-answer
}

func survey() (all []Unavailable) {
	broken := false
	for i := range setupSteps {
		s := &setupSteps[i]
		found := Unavailable{Feature: s.feature, Since: s.since}
		if err := s.try(); err != nil {
			found.Err, found.Fix, broken = err, fixFor(err), true
			var missing *Unavailable
			if errors.As(err, &missing) {
				found = *missing
			}
		}
		all = append(all, found)
	}
	receive := []Unavailable{
		{Feature: "IORING_REGISTER_PBUF_RING", Since: "5.19"},
		{Feature: "IORING_RECV_MULTISHOT", Since: "6.0"},
		{Feature: "IORING_ASYNC_CANCEL_FD", Since: "5.19"},
	}
	operations := surveyOperations(broken)
	if broken {
		for i := range receive {
			receive[i].Err = errUntried
		}
		return append(append(all, receive...), operations...)
	}
	var missing *Unavailable
	if err := probe(); errors.As(err, &missing) {
		for i := range receive {
			switch {
			case broken:
				receive[i].Err = errUntried
			case receive[i].Feature == missing.Feature:
				receive[i], broken = *missing, true
			}
		}
		if !broken {
			receive = append([]Unavailable{*missing}, receive...)
		}
	}
	return append(append(all, receive...), operations...)
}

// opsMax is how many operations the kernel is asked about: a byte names them.
const opsMax = 256

// opsProbe mirrors struct io_uring_probe with its struct io_uring_probe_op.
type opsProbe struct {
	lastOp uint8
	opsLen uint8
	resv   uint16
	resv2  [3]uint32
	ops    [opsMax]struct {
		op    uint8
		resv  uint8
		flags uint16
		resv2 uint32
	}
}

const opSupported = 1 << 0 // IO_URING_OP_SUPPORTED

// surveyOperations asks the kernel which of the operations in ops_linux.go it has.
func surveyOperations(broken bool) []Unavailable {
	names := []struct {
		op          uint8
		name, since string
	}{
		{abi.IORING_OP_POLL_ADD, "IORING_OP_POLL_ADD", "5.1"},
		{abi.IORING_OP_SENDMSG, "IORING_OP_SENDMSG", "5.3"},
		{abi.IORING_OP_ACCEPT, "IORING_OP_ACCEPT", "5.5"},
		{abi.IORING_OP_ASYNC_CANCEL, "IORING_OP_ASYNC_CANCEL", "5.5"},
		{abi.IORING_OP_CONNECT, "IORING_OP_CONNECT", "5.5"},
		{abi.IORING_OP_READ, "IORING_OP_READ", "5.6"},
		{abi.IORING_OP_FADVISE, "IORING_OP_FADVISE", "5.6"},
		{abi.IORING_OP_SEND, "IORING_OP_SEND", "5.6"},
		{abi.IORING_OP_RECV, "IORING_OP_RECV", "5.6"},
	}
	all := make([]Unavailable, len(names))
	var asked opsProbe
	err := errUntried
	if !broken {
		err = askOperations(&asked)
	}
	for i, n := range names {
		all[i] = Unavailable{Feature: n.name, Since: n.since, Err: err}
		if err == nil && asked.ops[n.op].flags&opSupported == 0 {
			all[i].Err, all[i].Fix = unix.EOPNOTSUPP, fixKernel
		}
	}
	return all
}

func askOperations(asked *opsProbe) error {
	params := abi.IOURingParams{}
	fd, err := abi.IOURingSetup(1, &params)
	if err != nil {
		return err
	}
	// The kernel writes asked before the call returns, and it is reachable until then.
	err = abi.IOURingRegister(fd, abi.IORING_REGISTER_PROBE, unsafe.Pointer(asked), opsMax)
	return errors.Join(err, unix.Close(fd))
}
