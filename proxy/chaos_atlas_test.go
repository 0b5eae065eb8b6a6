package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"atlas/proxy/looptest"
	"atlas/proxy/server"
)

// report is what the process under test says of itself.
type report struct {
	Goroutines int
	Heap       uint64 // bytes that are in use
	Descs      int    // open descriptors
	Resident   int    // kB; 0 where the system does not say
	Accepted   uint64
	Open       int64 // connections of clients
	Dialled    int64 // connections to upstreams
	Tasks      int64
	Panics     uint64
	Starved    uint64
	Refused    uint64
}

func (r report) String() string {
	return fmt.Sprintf("%d goroutines, %d tasks, %d kB heap, %d kB resident, %d descriptors, %d clients, %d dialled",
		r.Goroutines, r.Tasks, r.Heap>>10, r.Resident, r.Descs, r.Open, r.Dialled)
}

// atlasRole is main of the process under test, chaos-atlas CONFIG: the program,
// which answers questions about itself besides.
func atlasRole() { os.Exit(playAtlas(os.Args[1])) }

func playAtlas(file string) int {
	reading, ok := load(file, os.Stderr)
	if !ok {
		return exitUsage
	}
	cfg := reading.Config
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	s, err := server.Start(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return exitRuntime
	}
	fmt.Println("listening", s.Addr())
	go answerQuestions(s)
	<-signals
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeouts.Drain)
	defer cancel()
	if !s.Shutdown(ctx) {
		fmt.Fprintln(os.Stderr, "cut what had not ended in time")
		return exitRuntime
	}
	return exitOK
}

// answerQuestions reads a word a line from standard input. Its end is the end of
// the test, however that came about.
func answerQuestions(s *server.Server) {
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		switch questions.Text() {
		case "collect":
			runtime.GC() // twice, for what sync.Pool keeps for one
			runtime.GC()
			debug.FreeOSMemory()
		case "stacks":
			stacks := make([]byte, 1<<20)
			_, _ = os.Stderr.Write(stacks[:runtime.Stack(stacks, true)])
		}
		answer, err := json.Marshal(look(s))
		if err != nil {
			break
		}
		fmt.Printf("%s\n", answer)
	}
	os.Exit(exitRuntime)
}

func look(s *server.Server) (r report) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.Goroutines, r.Heap = runtime.NumGoroutine(), memory.HeapAlloc
	if entries, err := os.ReadDir("/dev/fd"); err == nil {
		r.Descs = len(entries)
	}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, pages int
		_, _ = fmt.Sscan(string(statm), &size, &pages) // both or neither
		r.Resident = pages * os.Getpagesize() >> 10
	}
	for _, c := range s.Counters() {
		r.Accepted += c.Accepted.Load()
		r.Open += c.Open.Load()
		r.Dialled += c.Dialled.Load()
		r.Tasks += c.Tasks.Load()
		r.Panics += c.Panics.Load()
		r.Starved += c.Starved.Load()
		r.Refused += c.Refused.Load()
	}
	return r
}

// roleProcess is this test binary in another role.
type roleProcess struct {
	cmd    *exec.Cmd
	log    *looptest.Printed
	stdin  io.WriteCloser
	stdout *bufio.Reader
	exited chan struct{}
	asking sync.Mutex
}

// startRole starts one, in a process group of its own: should this test be killed
// while it is stopped, the system goes on with it and hangs it up, because the
// group is an orphan then.
func startRole(role string, args ...string) (*roleProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &roleProcess{cmd: exec.Command(self, args...), log: new(looptest.Printed), exited: make(chan struct{})}
	p.cmd.Args[0] = role
	p.cmd.Env = append(os.Environ(), exitAtOnce)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.log
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdin, p.stdout = stdin, bufio.NewReader(stdout)
	if err := looptest.Start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	return p, nil
}

// kill ends it, stopped or not.
func (p *roleProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
	_ = p.stdin.Close()
}

// question asks for a report.
func (p *roleProcess) question(word string) (r report, err error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	if _, err = io.WriteString(p.stdin, word+"\n"); err != nil {
		return r, err
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(line), &r)
}

// tail is the end of what it has logged.
func (p *roleProcess) tail() string {
	lines := strings.Split(p.log.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-200):], "\n")
}
