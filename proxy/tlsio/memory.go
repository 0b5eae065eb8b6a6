package tlsio

// Memory is what a worker lends to its connections, last in first out: the
// warmest first.
type Memory struct {
	in    freeList // decrypted bytes: a head
	plain freeList // bytes of a record that is being gathered
	out   freeList // encrypted bytes on their way to the connection below
	file  freeList // pieces of files
}

const (
	inBytes   = 4 << 10
	fileBytes = outRecords * recordBytes
	// smallKept and largeKept bound what a worker keeps: 4 MiB of small buffers,
	// as in package loop, 2 MiB of each of the others.
	smallKept = 1024
	plainKept = 128
	largeKept = 32
)

// NewMemory makes the memory of one worker.
func NewMemory() *Memory {
	return &Memory{
		in:    freeList{size: inBytes, most: smallKept},
		plain: freeList{size: recordBytes, most: plainKept},
		out:   freeList{size: outBytes, most: largeKept},
		file:  freeList{size: fileBytes, most: largeKept},
	}
}

// freeList is memory of one size.
type freeList struct {
	size, most int
	free       [][]byte
}

func (l *freeList) take() []byte {
	if n := len(l.free); n > 0 {
		p := l.free[n-1]
		l.free = l.free[:n-1]
		return p
	}
	return make([]byte, l.size)
}

// put takes memory back. What has grown elsewhere is left to the collector.
func (l *freeList) put(p []byte) {
	if cap(p) == l.size && len(l.free) < l.most {
		l.free = append(l.free, p[:l.size])
	}
}
