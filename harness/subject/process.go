package subject

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atlas/harness/host"
	"atlas/harness/origin"
)

// Launcher starts servers. Zero time-outs mean the defaults.
type Launcher struct {
	Programs Programs
	Scratch  string // existing directory for configurations and logs
	// StartTimeout bounds the wait for the first right answer, StopTimeout
	// the wait for the end after SIGTERM.
	StartTimeout, StopTimeout time.Duration
}

const (
	startTimeoutDefault = 10 * time.Second
	stopTimeoutDefault  = 5 * time.Second
	probeTimeout        = 5 * time.Second // 100 MB over TLS on a busy machine take one
	probeInterval       = 5 * time.Millisecond
	logTailBytes        = 2000
	endMoment           = 50 * time.Millisecond
)

// Running is a server that has answered rightly once.
type Running struct {
	Address string // "host:port"
	Meter   Meter  // of the server's process and its children, as far as that is known

	name        string
	dir         string
	already     int           // process of a server that ran already, 0 if nobody said
	command     *exec.Cmd     // nil for such a server
	container   *container    // nil for a process of this machine
	volume      *volume       // that the container sees; nil on this host
	far         *farMeter     // Meter, if that is on another host
	exited      chan struct{} // closed once the process is reaped
	exit        error         // valid after exited
	stopTimeout time.Duration
}

// Start runs s on cores and returns once it serves site. A server that ends,
// stays silent or answers wrongly for too long is stopped again and is an
// error with the tail of its log. If ctx ends, so does the server.
func (l Launcher) Start(ctx context.Context, s Subject, site Site, cores []int) (*Running, error) {
	if s.ByURL() {
		return s.meet(ctx, site)
	}
	program, err := s.find(l.Programs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	p, err := s.place(l.Scratch, program, site)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	argv, env, err := s.arguments(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	r := &Running{
		Address: p.Address(), name: s.Name, dir: p.Dir,
		exited: make(chan struct{}), stopTimeout: l.StopTimeout,
	}
	if compose := l.Programs.Compose; compose != nil {
		r.command, r.container = compose.start(s, l.Scratch, cores, argv)
		r.volume = compose.volume
		l.StartTimeout = cmp.Or(l.StartTimeout, containerStart)
		cores = nil // those are the container's
	} else {
		r.command = exec.Command(program, argv...)
		r.command.Dir = r.dir
		r.command.Env = append(os.Environ(), env...)
	}
	if r.stopTimeout == 0 {
		r.stopTimeout = stopTimeoutDefault
	}
	if err := s.writeConfig(p); err != nil {
		return nil, fmt.Errorf("%s: configuration: %w", s.Name, err)
	}
	if err := r.volume.carry(p.Dir); err != nil {
		return nil, fmt.Errorf("%s: configuration: %w", s.Name, errors.Join(err, os.RemoveAll(p.Dir)))
	}
	if err := r.launch(cores); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	err = r.await(ctx, site, l.StartTimeout)
	if err == nil {
		r.Meter, err = r.meter()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w%s", s.Name, err, r.logTail())
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// launch starts the process with its output in a log file.
func (r *Running) launch(cores []int) error {
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own copy
	r.command.Stdout, r.command.Stderr = log, log
	if err := host.StartOn(r.command, cores); err != nil {
		return err
	}
	go func() {
		r.exit = r.command.Wait()
		close(r.exited)
	}()
	return nil
}

// meter finds the processes of the server.
func (r *Running) meter() (Meter, error) {
	if r.volume != nil {
		var err error
		r.far, err = r.volume.meterOf(r.container.name)
		return r.far, err
	}
	pid, err := r.pid()
	if err != nil {
		return nil, err
	}
	return host.NewMeter(pid)
}

// CallMeter counts the system calls of the server from now on. It has to be closed.
func (r *Running) CallMeter() (*host.CallMeter, error) {
	pid, err := r.pid()
	if err != nil {
		return nil, err
	}
	return host.NewCallMeter(pid)
}

// pid is that of the server's first process.
func (r *Running) pid() (int, error) {
	switch {
	case r.container != nil:
		return r.container.pid()
	case r.command != nil:
		return r.command.Process.Pid, nil
	case r.already != 0:
		return r.already, nil
	}
	return 0, host.ErrNoProcess
}

// await asks for the site's document until the whole answer is right.
func (r *Running) await(ctx context.Context, site Site, timeout time.Duration) error {
	if timeout == 0 {
		timeout = startTimeoutDefault
	}
	expired := time.After(timeout)
	client, url := r.prober(site)
	want := origin.Document(site.Length)
	for {
		wrong := probe(ctx, client, url, want)
		if wrong == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.exited:
			return fmt.Errorf("ended before it served anything (%s)", r.how())
		case <-expired:
			return fmt.Errorf("not ready after %v: %w", timeout, wrong)
		case <-time.After(probeInterval):
		}
	}
}

// prober is a client for probes of the site's document, and its URL.
func (r *Running) prober(site Site) (*http.Client, string) {
	transport := &http.Transport{DisableKeepAlives: true}
	url := "http://" + r.Address + site.Path
	if site.Identity != nil {
		transport.TLSClientConfig = site.Identity.Client()
		url = "https://" + r.Address + site.Path
	}
	return &http.Client{Timeout: probeTimeout, Transport: transport}, url
}

// Answers asks once for the site's document, of a server that was loaded.
func (r *Running) Answers(ctx context.Context, site Site) error {
	if err := r.ask(ctx, site); err != nil {
		return fmt.Errorf("%s stalled, or answers wrongly, after it was measured: %w", r.name, err)
	}
	return nil
}

// ask asks once.
func (r *Running) ask(ctx context.Context, site Site) error {
	client, url := r.prober(site)
	return probe(ctx, client, url, origin.Document(site.Length))
}

// probe fetches one document and says what is wrong with the answer.
func probe(ctx context.Context, client *http.Client, url string, want []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: status %s", url, response.Status)
	}
	got, err := io.ReadAll(io.LimitReader(response.Body, int64(len(want))+1))
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	if len(got) != len(want) {
		return fmt.Errorf("GET %s: body of %d bytes, want %d", url, len(got), len(want))
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("GET %s: body of the right length with other bytes", url)
	}
	return nil
}

// Stop ends the server and removes its files: SIGTERM first, SIGKILL after
// the time-out, which is an error. It returns when the process is gone. A
// server that ran already goes on.
func (r *Running) Stop() error {
	if r.command == nil {
		return nil
	}
	wait := r.stopTimeout
	if r.far != nil {
		r.far.close()
	}
	if r.container != nil {
		r.container.stop(r.stopTimeout, r.exited)
	} else {
		_ = r.command.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	var late error
	select {
	case <-r.exited:
	case <-time.After(wait):
		late = fmt.Errorf("%s: still running %v after SIGTERM, killed", r.name, r.stopTimeout)
	}
	// The group is ours, made at the start: this ends a server that stays, and
	// children that outlived a crashed one.
	_ = syscall.Kill(-r.command.Process.Pid, syscall.SIGKILL) // ESRCH is the usual answer
	<-r.exited
	return errors.Join(late, os.RemoveAll(r.dir))
}

// Ended says whether the server has ended by itself, with the tail of its log. It is
// asked when something is wrong, and a process whose connections are gone takes a
// moment to be so itself.
func (r *Running) Ended() error {
	select {
	case <-r.exited:
		return fmt.Errorf("%s ended while it was measured (%s)%s", r.name, r.how(), r.logTail())
	case <-time.After(endMoment):
		return nil
	}
}

// how says how the process ended, which it has.
func (r *Running) how() string {
	if r.exit == nil {
		return "exit status 0: it has to stay in the foreground"
	}
	return r.exit.Error()
}

// logTail returns the end of the server's output, indented, or "".
func (r *Running) logTail() string {
	text, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil || len(text) == 0 {
		return ""
	}
	text = text[max(0, len(text)-logTailBytes):]
	return "\n    | " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    | ")
}
