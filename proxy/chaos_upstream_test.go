package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// upstreamRole is main of an upstream: chaos-upstream ADDRESS JOURNAL SEED KEEP.
//
// The journal is what the test believes: each line is appended by one write
// before a byte of the answer leaves, so it survives being killed.
//
//	H ID METHOD TIME    the head of a request has come
//	B ID METHOD TIME    all of its body has
//	W ID WHAT           something that came is wrong
func upstreamRole() {
	if err := playUpstream(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func playUpstream(address, journal, seed, keep string) error {
	u := new(upstreamServer)
	var err error
	if u.seed, err = strconv.ParseUint(seed, 10, 64); err != nil {
		return err
	}
	idle, err := time.ParseDuration(keep)
	if err != nil {
		return err
	}
	if u.journal, err = os.OpenFile(journal, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	u.keep = fmt.Sprintf("timeout=%d", idle/time.Second)
	server := &http.Server{Handler: u, IdleTimeout: idle}
	go func() { _ = server.Serve(ln) }() // until the process ends
	fmt.Println("listening", ln.Addr())
	// The end of standard input is the end of the test, however that came about.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// upstreamServer does as it is asked.
type upstreamServer struct {
	seed    uint64
	keep    string
	journal *os.File
}

// note writes a line, or ends the process: without a journal it proves nothing.
func (u *upstreamServer) note(format string, args ...any) {
	if _, err := fmt.Fprintf(u.journal, format+"\n", args...); err != nil {
		fmt.Fprintln(os.Stderr, "upstream: journal:", err)
		os.Exit(1)
	}
}

func (u *upstreamServer) noteArrival(letter string, a *ask) {
	u.note("%s %d %s %s", letter, a.id, a.method, time.Now().Format("15:04:05.000"))
}

func (u *upstreamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := readAsk(r)
	if err != nil {
		u.note("W %d %s %q: %v", a.id, r.Method, r.RequestURI, err)
		http.Error(w, err.Error(), 599)
		return
	}
	if got := r.Header["X-Forwarded-For"]; len(got) != 1 || r.Header.Get("Via") == "" || r.Host != "chaos.test" {
		u.note("W %d X-Forwarded-For %q, Via %q, Host %q", a.id, got, r.Header["Via"], r.Host)
	}
	u.noteArrival("H", &a)
	time.Sleep(a.delay)
	head := w.Header()
	head.Set("X-Id", strconv.FormatUint(a.id, 10))
	head.Set("Keep-Alive", u.keep)
	if a.interim {
		head.Set("Link", fmt.Sprintf("</%d>", a.id))
		w.WriteHeader(http.StatusEarlyHints)
		head.Del("Link")
	}
	switch a.act {
	case actEcho:
		u.echo(w, r, &a)
	case actMake:
		u.read(r, &a)
		u.send(w, &a)
	case actEarly:
		// Or net/http would read the body first. So it reads on behind the
		// answer, for a while: who asks again on that connection meanwhile, in
		// the middle of that body, gets what he deserves.
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1 can
		head.Set("Content-Length", "2")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "no") // if they have left, nobody is to be told
	default:
		u.misbehave(w, r, &a)
	}
}

// read takes the whole request body. Where it is not the right one, or breaks
// off, there is no answer: net/http would end one in order.
func (u *upstreamServer) read(r *http.Request, a *ask) {
	u.readInto(r, a, func([]byte) error { return nil })
}

func (u *upstreamServer) readInto(r *http.Request, a *ask, piece func([]byte) error) {
	want := patternOf(u.seed, a.id, upwards)
	p := make([]byte, 32<<10)
	for off := int64(0); ; {
		n, err := r.Body.Read(p)
		if at := want.differs(p[:n], off); at >= 0 {
			u.note("W %d %s body: byte %d of %d is wrong", a.id, a.method, at, a.size)
			panic(http.ErrAbortHandler)
		}
		off += int64(n)
		if err != nil && err != io.EOF {
			panic(http.ErrAbortHandler)
		}
		if err == io.EOF {
			if off != a.size {
				u.note("W %d %s body: %d bytes and a good end, of %d", a.id, a.method, off, a.size)
				panic(http.ErrAbortHandler)
			}
			u.noteArrival("B", a)
		}
		if failed := piece(p[:n]); failed != nil {
			panic(http.ErrAbortHandler)
		}
		if err == io.EOF {
			return
		}
	}
}

// echo sends each piece when the next has come, so that the last one leaves
// behind the journal's line.
func (u *upstreamServer) echo(w http.ResponseWriter, r *http.Request, a *ask) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/1 can
	u.frame(w, a, a.size)
	var last []byte
	u.readInto(r, a, func(p []byte) error {
		_, err := w.Write(last)
		last = append(last[:0], p...)
		return errors.Join(err, control.Flush())
	})
	_, _ = w.Write(last)
}

// frame begins a response with a body of that size.
func (u *upstreamServer) frame(w http.ResponseWriter, a *ask, size int64) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Size", strconv.FormatInt(size, 10))
	switch a.framing {
	case byLength:
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	case byChunks:
		w.Header().Set("Transfer-Encoding", "chunked")
	case byClose:
		w.Header().Set("Transfer-Encoding", "identity") // which is how net/http is told
	}
	w.WriteHeader(http.StatusOK)
}

func (u *upstreamServer) send(w http.ResponseWriter, a *ask) {
	u.frame(w, a, a.reply)
	if a.method == http.MethodHead {
		return
	}
	body := patternOf(u.seed, a.id, downwards)
	p := make([]byte, 32<<10)
	for off := int64(0); off < a.reply; {
		n := min(int64(len(p)), a.reply-off)
		body.fill(p[:n], off)
		if _, err := w.Write(p[:n]); err != nil {
			return
		}
		off += n
	}
}

// misbehave does one of the things that upstreams do to proxies.
func (u *upstreamServer) misbehave(w http.ResponseWriter, r *http.Request, a *ask) {
	if a.id%2 == 0 {
		u.read(r, a)
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the connection is gone
	}
	defer conn.Close()
	if a.act == actReset || a.act == actResetBody {
		defer conn.(*net.TCPConn).SetLinger(0) // runs before Close
	}
	out := bufio.NewWriter(conn)
	defer out.Flush()
	switch a.act {
	case actGarbage:
		_, _ = out.WriteString("SSH-2.0-OpenSSH_9.2\r\n")
	case actTruncate, actResetBody:
		p := make([]byte, a.reply/2)
		patternOf(u.seed, a.id, downwards).fill(p, 0)
		_, _ = fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nX-Id: %d\r\nX-Size: %d\r\n", a.id, a.reply)
		if a.framing == byLength {
			_, _ = fmt.Fprintf(out, "Content-Length: %d\r\n\r\n%s", a.reply, p)
		} else {
			_, _ = fmt.Fprintf(out, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(p), p)
		}
	}
}

// startUpstream waits until it listens. An address of before may still be held by
// what is left of a process that was killed a moment ago.
func startUpstream(address, journal string, seed uint64, keep time.Duration) (p *roleProcess, at string, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		p, err = startRole("chaos-upstream", address, journal, strconv.FormatUint(seed, 10), keep.String())
		if err != nil {
			return nil, "", err
		}
		var line string
		if line, err = p.stdout.ReadString('\n'); err == nil {
			if _, err = fmt.Sscanf(line, "listening %s", &at); err == nil {
				return p, at, nil
			}
		}
		p.kill()
		err = fmt.Errorf("upstream on %s: %w: %s", address, err, p.log)
	}
	return nil, "", err
}

// signal may find that it has ended, which whoever waits for it sees.
func (p *roleProcess) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }
