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
// of the process: what does not fit, or cannot be written, is dropped and counted.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64 // since the last line that was written
	lost    atomic.Int64 // since the start
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
		q.drop()
	}
	return len(line), nil
}

func (q *logQueue) drop() {
	q.dropped.Add(1)
	q.lost.Add(1)
}

// run writes. There is nobody to tell of an error, until a write goes well again.
func (q *logQueue) run(to io.Writer) {
	defer close(q.done)
	torn := false // what was written ends within a line
	write := func(line []byte) bool {
		if torn {
			line = append([]byte{'\n'}, line...)
		}
		n, err := to.Write(line)
		if n > 0 {
			torn = err != nil
		}
		return err == nil
	}
	for {
		line := <-q.lines
		if line == nil {
			return
		}
		if n := q.dropped.Load(); n > 0 {
			told := fmt.Appendf(nil, "level=WARN msg=\"log lines dropped: they could not be written\" lines=%d\n", n)
			if write(told) {
				q.dropped.Add(-n)
			}
		}
		if !write(line) {
			q.drop()
		}
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
