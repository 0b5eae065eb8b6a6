package host

// Calls are system calls: all of them, and those that enter an io_uring.
type Calls struct {
	All, Enters uint64
}

// Minus returns the calls made since an earlier reading.
func (c Calls) Minus(earlier Calls) Calls {
	return Calls{All: c.All - earlier.All, Enters: c.Enters - earlier.Enters}
}
