package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// inherited is the environment variable that tells a child that it is an heir.
const inherited = "ATLAS_HANDOVER"

// Descriptors of a child: the first that exec.Cmd.ExtraFiles fills.
const (
	childWire   = 3
	childStderr = 4
)

// Program is the file that this process was started from, and how: started again,
// it may be another program, as an upgrade puts a new file there.
type Program struct {
	Path string
	Args []string // behind the name
}

// Self is this process's program. It is called before the working directory or the
// file may have changed. A name that is a symbolic link stays one: it may lead
// elsewhere by the time of the upgrade.
func Self() (Program, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, err = os.Executable()
	}
	return Program{path, os.Args[1:]}, err
}

// Crash is an heir that was started here and did not come to serve.
type Crash struct {
	Err    error  // how the talk ended
	Status string // how the process did
	Stderr string // what it printed last
}

// Error says of a process that ended on its own how it did, and what it printed.
func (c *Crash) Error() string {
	if !errors.Is(c.Err, errGone) && !errors.Is(c.Err, errEarly) {
		return c.Err.Error()
	}
	text := fmt.Sprintf("%v: %s", c.Err, c.Status)
	if line := telling(c.Stderr); line != "" {
		text += ", having printed: " + line
	}
	return text
}

// telling is the line of what was printed that says most: the last one, but that
// behind a panic the stack follows.
func telling(printed string) (last string) {
	for line := range strings.Lines(printed) {
		last = strings.TrimSpace(line)
		if strings.HasPrefix(last, "panic: ") || strings.HasPrefix(last, "fatal error: ") {
			return last
		}
	}
	return last
}

func (c *Crash) Unwrap() error { return c.Err }

// Raise starts the program anew and gives it everything. It returns its process
// when that serves in our place. What it prints goes to stderr until then.
func (g *Giver) Raise(ctx context.Context, program Program, stderr *os.File) (pid int, err error) {
	ours, theirs, err := pair()
	if err != nil {
		return 0, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close())
	if err != nil {
		return 0, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(err, conn.Close())
	}
	cmd := exec.Command(program.Path, program.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(without(os.Environ(), inherited, "WATCHDOG_PID"), inherited+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, write
	cmd.ExtraFiles = []*os.File{theirs, stderr}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return 0, errors.Join(err, conn.Close(), read.Close())
	}
	_ = theirs.Close() // or its end would not be seen here
	last := &tail{to: stderr, done: make(chan struct{})}
	go last.copy(read)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its state says how it ended
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.(*net.UnixConn).CloseRead() })
	defer stop()
	if _, err = g.talk(ctx, conn.(*net.UnixConn), g.config.Patience); err == nil {
		return cmd.Process.Pid, nil
	}
	mercy := answerTime / 2 // it may be about to print why
	if timedOut(err) {
		mercy = answerTime / 10 // it had its time
	}
	if err = g.late(err); errors.Is(err, ErrNothing) {
		err = errGone
	}
	select {
	case <-ended:
	case <-time.After(mercy):
		_ = cmd.Process.Kill()
		<-ended
	}
	select {
	case <-last.done:
	case <-time.After(answerTime / 2): // a process that it started prints there, too
	}
	return 0, &Crash{err, cmd.ProcessState.String(), last.String()}
}

// Raised reports that this process is a child of Raise, of which Inherit knows more.
func Raised() bool { return os.Getenv(inherited) == strconv.Itoa(os.Getppid()) }

// Inherit is what a child of Raise calls. A process that is none gets nil.
func Inherit() (*Heir, error) {
	parent, is := os.LookupEnv(inherited)
	if !is {
		return nil, nil
	}
	if err := os.Unsetenv(inherited); err != nil {
		return nil, err
	}
	if parent != strconv.Itoa(os.Getppid()) {
		return nil, nil // a program that it started has inherited the variable
	}
	file := os.NewFile(childWire, "handover")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", childWire, err)
	}
	heir, err := newHeir(conn.(*net.UnixConn))
	if err == nil {
		heir.child = true
	}
	return heir, err
}

// without drops variables from an environment.
func without(environment []string, names ...string) (kept []string) {
next:
	for _, entry := range environment {
		for _, name := range names {
			if strings.HasPrefix(entry, name+"=") {
				continue next
			}
		}
		kept = append(kept, entry)
	}
	return kept
}

// tailMax is how much of what a child prints is kept.
const tailMax = 4 << 10

// tail passes on what is written, and keeps the end of it.
type tail struct {
	to   io.Writer
	done chan struct{} // closed when nothing more comes
	mu   sync.Mutex
	last []byte
}

func (t *tail) copy(from *os.File) {
	defer close(t.done)
	defer from.Close()
	p := make([]byte, 4<<10)
	for {
		n, err := from.Read(p)
		t.mu.Lock()
		t.last = append(t.last, p[:n]...)
		t.last = t.last[max(0, len(t.last)-tailMax):]
		t.mu.Unlock()
		_, _ = t.to.Write(p[:n]) // a log that nobody reads holds nothing up
		if err != nil {
			return
		}
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.last))
}
