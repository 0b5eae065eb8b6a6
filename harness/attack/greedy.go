package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"
	"time"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
	"atlas/scenarios"
)

// Greedy is a client that does one thing over and over on one connection, as fast
// as it can. It is a process of its own, which gives way to every other on its
// cores: beside the requests, in one process, it would have them wait for itself,
// and that would look like the server's doing.
type Greedy struct {
	Address string // "host:port"
	Path    string // of what the others ask for
	Length  int    // of its body
	Greed   scenarios.Greed
}

// VerbGreedy is the verb by which the harness is a greedy client.
const VerbGreedy = "be-greedy"

// arguments are those of the process.
func (g Greedy) arguments() []string {
	return []string{
		VerbGreedy, "-address", g.Address, "-path", g.Path, "-length", fmt.Sprint(g.Length), string(g.Greed),
	}
}

// ParseGreedy reads the arguments after the verb.
func ParseGreedy(stderr io.Writer, args []string) (g Greedy, err error) {
	flags := flag.NewFlagSet(VerbGreedy, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&g.Address, "address", "", "host and `port` of the server")
	flags.StringVar(&g.Path, "path", "", "`path` of what the others ask for")
	flags.IntVar(&g.Length, "length", 0, "`bytes` of its body")
	err = flags.Parse(args)
	g.Greed = scenarios.Greed(flags.Arg(0))
	return g, err
}

// greedyWork is what a greedy client got done.
type greedyWork struct {
	Bytes   int           // of bodies that were read, or of everything that was written in uploads
	Answers int           // that were read to their end
	Wall    time.Duration // from its first byte
}

// greedyBuffer is how much is sent or received at a time.
const greedyBuffer = 256 << 10

// Run is greedy until ctx ends. It writes a line once it is connected, and at its
// end what it got done.
func (g Greedy) Run(ctx context.Context, w io.Writer) error {
	if err := host.GiveWay(); err != nil {
		return err
	}
	socket, err := net.DialTimeout("tcp", g.Address, dialTimeout)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // fails what waits for it
	if _, err := fmt.Fprintln(w, "connected"); err != nil {
		return err
	}
	c := &greedyConn{Conn: socket}
	c.answers = bufio.NewReaderSize(c, greedyBuffer)
	began := time.Now()
	for err == nil {
		err = g.once(c)
	}
	c.work.Wall = time.Since(began)
	if ctx.Err() == nil {
		return errors.Join(err, socket.Close())
	}
	return json.NewEncoder(w).Encode(c.work)
}

// once is one upload, one download, or one pipeline.
func (g Greedy) once(c *greedyConn) error {
	switch g.Greed {
	case scenarios.Upload:
		return c.upload(g)
	case scenarios.Download:
		g.Path = scenarios.GreedyPath
		if _, err := c.Write(g.request()); err != nil {
			return err
		}
		return c.answer(scenarios.GreedyLength)
	}
	return c.pipeline(g)
}

// request is that of a target.
func (g Greedy) request() []byte { return Target{Address: g.Address, Path: g.Path}.request() }

// greedyConn is the connection.
type greedyConn struct {
	net.Conn
	answers *bufio.Reader
	work    greedyWork
	head    []byte
}

// upload sends a body, of which only the length counts, and reads the answer.
func (c *greedyConn) upload(g Greedy) error {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n",
		g.Path, g.Address, scenarios.GreedyLength)
	if _, err := c.Write(head); err != nil {
		return err
	}
	piece := origin.Document(greedyBuffer)
	for left := scenarios.GreedyLength; left > 0; {
		n, err := c.Write(piece[:min(left, len(piece))])
		c.work.Bytes += n
		left -= n
		if err != nil {
			return fmt.Errorf("with %d bytes of an upload left: %w", left, err)
		}
	}
	return c.answer(0)
}

// pipeline sends many requests in one write, and reads their answers. The write
// does not wait for those, but may have to be read for: a server need not take a
// request while nobody takes its answers.
func (c *greedyConn) pipeline(g Greedy) error {
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(bytes.Repeat(g.request(), scenarios.GreedyDepth))
		wrote <- err
	}()
	for range scenarios.GreedyDepth {
		if err := c.answer(g.Length); err != nil {
			return err
		}
	}
	return <-wrote
}

// answer reads the right one, with a body of length bytes.
func (c *greedyConn) answer(length int) error {
	c.head = c.head[:0]
	for !bytes.HasSuffix(c.head, []byte("\r\n\r\n")) {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("after %d bytes of a head: %w", len(c.head), err)
		}
		if c.head = append(c.head, line...); len(c.head) > headMax {
			return fmt.Errorf("head of more than %d bytes", headMax)
		}
	}
	keep, err := checkHead(c.head[:len(c.head)-len("\r\n")], length)
	if err != nil {
		return err
	}
	for left := length; left > 0; {
		n, err := c.answers.Discard(min(left, greedyBuffer))
		c.work.Bytes += n
		left -= n
		if err != nil {
			return fmt.Errorf("with %d bytes of the body missing: %w", left, err)
		}
	}
	c.work.Answers++
	if !keep {
		return errors.New("the server ends the connection")
	}
	return nil
}

// greedyProcess is a greedy client at work.
type greedyProcess struct {
	cmd    *exec.Cmd
	said   *bufio.Reader
	stderr bytes.Buffer
}

// startGreedy returns once the client is connected, or has ended.
func (g Generator) startGreedy(client Greedy) (*greedyProcess, error) {
	p := &greedyProcess{cmd: exec.Command(g.Harness, client.arguments()...)}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := host.StartOn(p.cmd, g.Cores); err != nil {
		return nil, err
	}
	p.said = bufio.NewReader(out)
	_, _ = p.said.ReadString('\n') // at its end stop says why
	return p, nil
}

// stop ends the client and returns what it got done.
func (p *greedyProcess) stop(patience time.Duration) (greedyWork, error) {
	var work greedyWork
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // if it has ended, Wait says how
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	last, read := io.ReadAll(p.said)
	if err := p.cmd.Wait(); err != nil {
		return work, fmt.Errorf("%w: %s", err, bytes.TrimSpace(p.stderr.Bytes()))
	}
	return work, errors.Join(read, json.Unmarshal(last, &work))
}

// greedyMin is more than the kernel takes of an upload that nobody reads, or of
// a download before the first byte is read: 4 MB to send, 6 MB received.
const greedyMin = 16 << 20

// refusal says why a client was not greedy, or nil.
func (w greedyWork) refusal(greed scenarios.Greed) error {
	if greed == scenarios.Pipeline && w.Answers == 0 || greed != scenarios.Pipeline && w.Bytes < greedyMin {
		return fmt.Errorf("it got no work done: %d bytes and %d answers in %v", w.Bytes, w.Answers, w.Wall)
	}
	return nil
}

// measureGreedy drives the load while one client more is greedy.
func (r *requests) measureGreedy(ctx context.Context) (phase, error) {
	process, err := r.g.startGreedy(Greedy{
		Address: r.target.Address, Path: r.target.Path, Length: r.target.Length, Greed: r.load.Greedy,
	})
	if err != nil {
		return phase{}, err
	}
	p, err := r.g.drive(ctx, r.transport, r.load, r.load.Measured)
	work, failed := process.stop(r.g.StallMax)
	if err != nil {
		return phase{}, err
	}
	if failed == nil {
		failed = work.refusal(r.load.Greedy)
	}
	if failed != nil {
		p.failures.add(1, fmt.Sprintf("greedy client: %v", failed))
	}
	p.alone, p.greedy = r.alone, work
	return p, nil
}

// greedy adds what the others had without the greedy client, and what that got.
func (s *Sample) greedy(p phase, greed scenarios.Greed) {
	alone := p.alone.latency[results.P99]
	s.Values[results.AloneP99] = alone
	s.Values[results.P99Rise] = s.Values[results.P99] / alone
	if greed == scenarios.Pipeline {
		s.Values[results.GreedyThroughput] = float64(p.greedy.Answers) / p.greedy.Wall.Seconds()
		return
	}
	s.Values[results.GreedyBytes] = float64(p.greedy.Bytes) / p.greedy.Wall.Seconds()
}
