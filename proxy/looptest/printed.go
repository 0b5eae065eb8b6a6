package looptest

import (
	"bytes"
	"sync"
)

// Printed is what is written to it, by a log or a process, to be read while that
// goes on.
type Printed struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps p.
func (p *Printed) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

// String is all of it so far.
func (p *Printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}
