package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/looptest"
)

// brokenDisk has no room for some of the writes, or none after a few bytes.
type brokenDisk struct {
	looptest.Printed
	room []int // bytes that each of the first writes finds
}

func (d *brokenDisk) Write(line []byte) (int, error) {
	if len(d.room) == 0 {
		return d.Printed.Write(line)
	}
	n := min(d.room[0], len(line))
	d.room = d.room[1:]
	_, _ = d.Printed.Write(line[:n])
	return n, syscall.ENOSPC
}

// A line that cannot be written is counted, and told of by the first that can be;
// no line begins within the rest of another one.
func TestLogQueueCounts(t *testing.T) {
	disk := &brokenDisk{room: []int{3, 0, 0, 10, 0}}
	q := startLog(disk)
	for i := range 5 {
		_, _ = fmt.Fprintf(q, "line=%d\n", i)
	}
	q.end()
	// The second line, and then each notice and the line behind it.
	assert.Equal(t, "lin\nlevel=WAR\nlevel=WARN msg=\"log lines dropped: they could not be written\" lines=3\n"+
		"line=3\nline=4\n", disk.String())
	assert.EqualValues(t, 3, q.lost.Load())
	assert.Zero(t, q.dropped.Load())
}

// Lines that nobody reads are dropped, and counted.
func TestLogQueueFull(t *testing.T) {
	stopped := make(stoppedTerminal)
	q := startLog(stopped)
	for range logLinesMax + 10 {
		began := time.Now()
		_, _ = q.Write([]byte("a line\n"))
		assert.Less(t, time.Since(began), patience)
	}
	assert.GreaterOrEqual(t, q.lost.Load(), int64(9), "one may be on its way")
	close(stopped)
	q.end()
}

// stoppedTerminal takes nothing until it is closed.
type stoppedTerminal chan struct{}

func (s stoppedTerminal) Write(line []byte) (int, error) {
	<-s
	return len(line), nil
}
