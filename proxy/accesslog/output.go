package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Stdout and Stderr are the Paths that are no file's.
const (
	Stdout = "-"
	Stderr = "stderr"
)

// fileMode is of a file that is made: who may read the log is for its owner to say.
const fileMode = 0o640

// errNoReader is a FIFO that nobody has opened yet: no reason not to start.
var errNoReader = errors.New("the FIFO has no reader")

// pieceBytes is what is written at once to what is no file: a pipe takes as much
// in one piece, whoever else writes to it (PIPE_BUF).
const pieceBytes = 4096

// output is what is written to.
type output struct {
	settings Settings
	to       io.Writer // nil: a FIFO without a reader
	file     *os.File  // to, if it is ours to close
	regular  bool
}

// open opens what the settings name.
func (o *output) open() error {
	switch o.settings.Path {
	case Stdout, "stdout":
		o.use(os.Stdout)
		return nil
	case Stderr:
		o.use(os.Stderr)
		return nil
	}
	// Non-blocking: to open a FIFO would wait for a reader, and to write to one
	// could not be ended.
	file, err := os.OpenFile(o.settings.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, fileMode)
	if errors.Is(err, syscall.ENXIO) {
		return errNoReader
	}
	if err != nil {
		return fmt.Errorf("[access_log] path: %w", err)
	}
	o.use(file)
	o.file = file
	return nil
}

// Try says why Open would fail, and leaves no file behind.
func Try(s Settings) error {
	if s.Format == nil || s.Path == Stdout || s.Path == "stdout" || s.Path == Stderr {
		return nil
	}
	file, err := os.OpenFile(s.Path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
	switch {
	case err == nil:
		return file.Close()
	case errors.Is(err, syscall.ENXIO):
		return nil // a FIFO without a reader
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("[access_log] path: %w", err)
	}
	made, err := os.CreateTemp(filepath.Dir(s.Path), ".atlas-check-*")
	if err != nil {
		return fmt.Errorf("[access_log] path: %w", &fs.PathError{Op: "create", Path: s.Path, Err: errors.Unwrap(err)})
	}
	return errors.Join(made.Close(), os.Remove(made.Name()))
}

func (o *output) use(file *os.File) {
	o.to = file
	stat, err := file.Stat()
	o.regular = err == nil && stat.Mode().IsRegular()
}

// again opens the file anew; what was open stays where that fails.
func (o *output) again() error {
	if o.file == nil && o.to != nil {
		return nil // not ours
	}
	next := &output{settings: o.settings}
	if err := next.open(); err != nil {
		return err
	}
	o.close()
	*o = *next
	return nil
}

func (o *output) close() {
	if o.file != nil {
		_ = o.file.Close() // everything was written, or that has failed
		o.file, o.to = nil, nil
	}
}

// write writes whole lines. It returns how much was written, also with an error.
func (o *output) write(lines []byte) (written int, err error) {
	if o.to == nil {
		if err := o.open(); err != nil {
			return 0, err
		}
	}
	for written < len(lines) {
		piece := lines[written:]
		if !o.regular {
			piece = piece[:wholeLines(piece)]
		}
		n, err := o.to.Write(piece)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// wholeLines is how much of the lines makes a piece: as many as fit, or the first
// one if that does not.
func wholeLines(lines []byte) int {
	if len(lines) <= pieceBytes {
		return len(lines)
	}
	if end := bytes.LastIndexByte(lines[:pieceBytes], '\n'); end >= 0 {
		return end + 1
	}
	return bytes.IndexByte(lines, '\n') + 1
}
