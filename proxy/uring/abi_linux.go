package uring

// Constants of linux/io_uring.h that iouring-go/syscall does not have.
const (
	setupSingleIssuer = 1 << 12 // IORING_SETUP_SINGLE_ISSUER, 6.0
	setupDeferTaskrun = 1 << 13 // IORING_SETUP_DEFER_TASKRUN, 6.1; needs the one above

	featExtArg = 1 << 8 // IORING_FEAT_EXT_ARG, 5.11

	enterExtArg = 1 << 3 // IORING_ENTER_EXT_ARG

	sqOverflow = 1 << 1 // IORING_SQ_CQ_OVERFLOW in the flags of the submission queue

	registerIOWQAff    = 17 // IORING_REGISTER_IOWQ_AFF, 5.14
	registerPbufRing   = 22 // IORING_REGISTER_PBUF_RING, 5.19
	unregisterPbufRing = 23 // IORING_UNREGISTER_PBUF_RING

	acceptMultishot = 1 << 0 // IORING_ACCEPT_MULTISHOT in sqe.ioprio, 5.19
	recvMultishot   = 1 << 1 // IORING_RECV_MULTISHOT in sqe.ioprio, 6.0

	cancelAll = 1 << 0 // IORING_ASYNC_CANCEL_ALL in sqe.cancel_flags, 5.19
	cancelFd  = 1 << 1 // IORING_ASYNC_CANCEL_FD

	cqeFlagBuffer    = 1 << 0 // IORING_CQE_F_BUFFER: the upper 16 bits of flags are a buffer id
	cqeFlagMore      = 1 << 1 // IORING_CQE_F_MORE: the operation stays armed
	cqeFlagMoreBytes = 1 << 2 // IORING_CQE_F_SOCK_NONEMPTY: the socket holds more than was received
	cqeBufferShift   = 16     // IORING_CQE_BUFFER_SHIFT
)

// geteventsArg mirrors struct io_uring_getevents_arg.
type geteventsArg struct {
	sigmask     uint64
	sigmaskSize uint32
	minWaitUsec uint32
	timespec    uint64
}

// timespec mirrors struct __kernel_timespec.
type timespec struct {
	sec  int64
	nsec int64
}

// bufReg mirrors struct io_uring_buf_reg.
type bufReg struct {
	ringAddr uint64
	entries  uint32
	group    uint16
	flags    uint16
	resv     [3]uint64
}

// bufEntry mirrors struct io_uring_buf. The resv field of entry 0 is the
// ring's tail (struct io_uring_buf_ring overlays them).
type bufEntry struct {
	addr uint64
	len  uint32
	bid  uint16
	resv uint16
}
