package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	logLinesMax = 1024        // that wait to be written
	logPatience = time.Second // for them, at the end
)

// logQueue writes a log in a goroutine of its own. A reader that does not keep up,
// a full disk or a stopped terminal must hold nothing up, and least of all the end
// of the process: what does not fit is dropped, and counted.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64 // since the last line that was written
	done    chan struct{}
}

func startLog(to io.Writer) *logQueue {
	q := &logQueue{lines: make(chan []byte, logLinesMax), done: make(chan struct{})}
	go q.run(to)
	return q
}

// Write takes one line. It never waits and never fails. Any goroutine.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// run writes. There is nobody to tell of an error.
func (q *logQueue) run(to io.Writer) {
	defer close(q.done)
	for {
		line := <-q.lines
		if line == nil {
			return
		}
		if n := q.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(to, "level=WARN msg=\"log lines dropped: nobody read them\" lines=%d\n", n)
		}
		_, _ = to.Write(line)
	}
}

// end writes what waits, for a moment. What is written later is lost.
func (q *logQueue) end() {
	enough := time.After(logPatience)
	select {
	case q.lines <- nil:
	case <-enough:
		return
	}
	select {
	case <-q.done:
	case <-enough:
	}
}
