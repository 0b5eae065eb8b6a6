package looptest

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// stressTests mix everything that the others test one by one.
var stressTests = map[string]func(*Env){
	"everything at once":                    everything,
	"everything at once, with few buffers":  everythingStarved,
	"everything at once, and then a drain":  everythingDrained,
	"everything at once, cut off by a stop": everythingStopped,
}

const (
	stressTime    = 500 * time.Millisecond
	stressClients = 24
	stressSeed    = 20_240_229 // another one finds other moments
)

func everything(e *Env) { newStress(e).run(stressTime) }

func everythingStarved(e *Env) {
	cfg := e.config
	cfg.Buffers, cfg.BufferBytes = 8, 128
	e.restart(cfg)
	newStress(e).run(stressTime)
}

// A drain loses no exchange that has begun: who is in the middle of one gets
// the rest, and then the end.
func everythingDrained(e *Env) {
	s := newStress(e)
	s.ending.Store(true)
	time.AfterFunc(stressTime/4, e.Loop.Drain)
	s.run(stressTime)
	wait(e, "worker", e.Loop.Wait)
	assert.Zero(e, e.Loop.Counters().Dialled.Load())
}

func everythingStopped(e *Env) {
	s := newStress(e)
	s.ending.Store(true)
	s.cut.Store(true)
	time.AfterFunc(stressTime/4, e.Loop.Stop)
	s.run(stressTime)
	wait(e, "worker", e.Loop.Wait)
	assert.Zero(e, e.Loop.Counters().Dialled.Load())
}

// stress is a server of requests that consist of a line
//
//	what size
//
// and, for some, size bytes behind it. Each is answered with a line and bytes
// that the client knows in advance.
type stress struct {
	*Env
	content  []byte // what is sent, from any place of it
	open     func() *loop.File
	address  string
	upstream loop.Address
	idle     []loop.Conn // upstream connections, parked; the worker's
	random   *rand.Rand  // the worker's
	ending   atomic.Bool // the worker ends during the test
	cut      atomic.Bool // and ends nothing in order
	exchange atomic.Int64
	unserved sync.Map    // clients' connections that have got nothing yet
	over     atomic.Bool // the worker has ended: nor will they
}

func newStress(e *Env) *stress {
	s := &stress{Env: e, content: pattern(1 << 20), random: rand.New(rand.NewPCG(stressSeed, 1))}
	_, s.open = e.file(s.content)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	s.upstream = loop.Address{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()}
	var echoes sync.WaitGroup
	echoes.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			echoes.Go(func() { echo(c.(*net.TCPConn)); _ = c.Close() })
		}
	})
	e.Cleanup(func() {
		_ = ln.Close()
		e.Loop.Stop()
		wait(e, "worker to end", e.Loop.Wait) // closes the upstream connections
		wait(e, "upstreams to end", echoes.Wait)
	})
	s.address = e.Serve(s.serve)
	return s
}

// run has clients ask until the time is over, while the collector looks at
// everything that moves.
func (s *stress) run(d time.Duration) {
	s.Helper()
	end := time.Now().Add(d)
	var clients sync.WaitGroup
	for i := range stressClients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(stressSeed, uint64(100+i)))
			for time.Now().Before(end) && !s.Failed() {
				c, err := s.Env.connect(s.address)
				if err != nil {
					assert.True(s, s.ending.Load(), "dial: %v", err)
					return
				}
				s.client(c, random, end)
			}
		})
	}
	for time.Now().Before(end) {
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	if s.ending.Load() {
		wait(s, "worker", s.Loop.Wait)
		// Who connects after the end waits for a worker that is not there. On a busy
		// machine some have connected, and are not in the map before it is looked through;
		// others have closed, as there was no time left to ask anything.
		s.over.Store(true)
		s.unserved.Range(func(c, _ any) bool {
			_ = c.(net.Conn).Close()
			return true
		})
		wait(s, "clients", clients.Wait)
		return
	}
	wait(s, "clients", clients.Wait)
	assert.Greater(s, s.exchange.Load(), int64(10))
	s.eventually("all to close", func() bool { return s.Loop.Counters().Open.Load() == 0 })
}

var stressKinds = []string{"take", "fill", "send", "file", "proxy", "proxy", "both", "off", "sleep", "late"}

// client makes requests on one connection, and leaves it one way or another.
func (s *stress) client(c *net.TCPConn, random *rand.Rand, end time.Time) {
	defer c.Close()
	s.unserved.Store(c, nil)
	if s.over.Load() {
		return
	}
	in := bufio.NewReaderSize(c, 1+random.IntN(32<<10))
	for n := random.IntN(8); n >= 0 && time.Now().Before(end); n-- {
		var request []byte
		var answers [][]byte
		pipelined := random.IntN(3)
		if s.ending.Load() {
			pipelined = 0 // those behind the first may get no answer
		}
		for range 1 + pipelined {
			kind := stressKinds[random.IntN(len(stressKinds))]
			size := random.IntN(1 << random.IntN(18))
			request = fmt.Appendf(request, "%s %d\n", kind, size)
			body := s.content[size : 2*size]
			switch kind {
			case "take", "fill", "proxy", "both":
				request = append(request, body...)
			}
			answers = append(answers, s.answer(kind, size))
		}
		asked := make(chan error, 1)
		abort := random.IntN(20) == 0
		if abort {
			request = request[:random.IntN(len(request))]
		}
		go func() { _, err := c.Write(request); asked <- err }()
		if abort {
			time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
			if random.IntN(2) == 0 {
				_ = c.SetLinger(0)
			}
			s.unserved.Delete(c)
			_ = c.Close()
			<-asked
			return
		}
		for _, answer := range answers {
			if !s.expect(in, answer) {
				s.unserved.Delete(c)
				_ = c.Close()
				<-asked
				return
			}
			s.exchange.Add(1)
			s.unserved.Delete(c)
		}
		<-asked
	}
}

// expect wants an answer, or an end in its place if the worker ends.
func (s *stress) expect(in *bufio.Reader, answer []byte) bool {
	got := make([]byte, len(answer))
	n, err := io.ReadFull(in, got)
	switch {
	case err == nil:
		return assert.True(s, bytes.Equal(answer, got), "wrong bytes in an answer of %d", len(answer))
	case s.cut.Load(), s.ending.Load() && n == 0:
	default:
		assert.NoError(s, err, "after %d of %d bytes", n, len(answer))
	}
	return false
}

func (s *stress) answer(kind string, size int) []byte {
	body := s.content[size : 2*size]
	switch kind {
	case "take", "fill":
		return fmt.Appendf(nil, "%08x\n", crc32.ChecksumIEEE(body))
	case "off", "sleep":
		return []byte("rested\n")
	}
	return append(fmt.Appendf(nil, "%d\n", size), body...)
}

// serve answers every request that has arrived.
func (s *stress) serve(c loop.Conn) bool {
	for {
		line, err := readLine(c)
		if err != nil {
			return false
		}
		var kind string
		var size int
		_, err = fmt.Sscanf(string(line), "%s %d\n", &kind, &size)
		assert.NoError(s, err, "line %q", line)
		c.Consume(len(line))
		c.SetWriteDeadline(c.Loop().Now().After(patience))
		c.SetReadDeadline(c.Loop().Now().After(patience))
		if !s.do(c, kind, size) {
			return false
		}
		if len(c.Peek()) == 0 {
			return c.Flush() == nil
		}
	}
}

func (s *stress) do(c loop.Conn, kind string, size int) bool {
	body := s.content[size : 2*size]
	switch kind {
	case "take":
		sum, ok := s.take(c, size)
		return ok && s.write(c, fmt.Appendf(nil, "%08x\n", sum))
	case "fill":
		for len(c.Peek()) < size {
			if c.Fill() != nil {
				return false
			}
		}
		sum := crc32.ChecksumIEEE(c.Peek()[:size])
		c.Consume(size)
		return s.write(c, fmt.Appendf(nil, "%08x\n", sum))
	case "off":
		c.Loop().Off(func() { time.Sleep(time.Duration(size%1000) * time.Microsecond) })
		return s.write(c, []byte("rested\n"))
	case "sleep":
		c.Loop().Sleep(time.Duration(size%3000) * time.Microsecond)
		return s.write(c, []byte("rested\n"))
	}
	if !s.write(c, fmt.Appendf(nil, "%d\n", size)) {
		return false
	}
	switch kind {
	case "file":
		f := s.open()
		defer f.Close()
		n, err := c.SendFile(f, int64(size), int64(size))
		return err == nil && n == int64(size)
	case "late": // in pieces, the first of which nobody waits for
		half := size / 2
		if c.Queue(body[:half]) != nil || c.Flush() != nil {
			return false
		}
		c.Loop().Sleep(time.Millisecond)
		return c.Queue(body[half:]) == nil
	case "proxy", "both":
		return s.proxy(c, kind == "both", size)
	}
	return s.write(c, body)
}

// take reads size bytes of a body, in pieces of changing sizes.
func (s *stress) take(c loop.Conn, size int) (sum uint32, ok bool) {
	p := make([]byte, 1+s.random.IntN(64<<10))
	for size > 0 {
		n, err := c.Read(p[:min(len(p), size)])
		if err != nil {
			return sum, false
		}
		sum = crc32.Update(sum, crc32.IEEETable, p[:n])
		size -= n
	}
	return sum, true
}

// write sends p from memory that is used for something else right after.
func (s *stress) write(c loop.Conn, p []byte) bool {
	own := append([]byte(nil), p...)
	defer func() {
		for i := range own {
			own[i] = 0xee
		}
	}()
	for rest := own; len(rest) > 0; {
		piece := rest[:min(len(rest), 1+s.random.IntN(1<<s.random.IntN(18)))]
		rest = rest[len(piece):]
		if n, err := c.Write(piece); err != nil || n != len(piece) {
			return false
		}
		if s.random.IntN(4) == 0 && c.Flush() != nil {
			return false
		}
	}
	return true
}

// proxy sends a body to an upstream that echoes it, and the echo to the client.
func (s *stress) proxy(c loop.Conn, twoTasks bool, size int) bool {
	up, err := s.connect()
	if err != nil {
		assert.True(s, s.ending.Load(), "dial: %v", err)
		return false
	}
	deadline := c.Loop().Now().After(patience)
	up.SetReadDeadline(deadline)
	up.SetWriteDeadline(deadline)
	if !twoTasks {
		for len(c.Peek()) < size {
			if c.Fill() != nil {
				up.Reset()
				return false
			}
		}
		ok := s.write(up, c.Peek()[:size])
		c.Consume(size)
		up.Guard(c)
		ok = ok && up.Flush() == nil && s.relay(up, c, size)
		return s.done(up, ok)
	}
	upload := c.Loop().Go(func() {
		if !s.relay(c, up, size) {
			up.Reset()
		}
	})
	ok := s.relay(up, c, size)
	if !ok {
		c.SetReadDeadline(loop.Past)
	}
	return upload.Join() == nil && s.done(up, ok)
}

func (s *stress) relay(from, to loop.Conn, size int) bool {
	p := make([]byte, 1+s.random.IntN(64<<10))
	for size > 0 {
		n, err := from.Read(p[:min(len(p), size)])
		if err != nil || !s.write(to, p[:n]) || to.Flush() != nil {
			return false
		}
		size -= n
	}
	return true
}

func (s *stress) connect() (loop.Conn, error) {
	for len(s.idle) > 0 {
		up := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if up.Unpark() {
			return up, nil
		}
		up.Close()
	}
	return s.Loop.Dial(s.upstream, patience)
}

// done parks an upstream connection, or ends it.
func (s *stress) done(up loop.Conn, ok bool) bool {
	up.Guard(nil)
	switch {
	case !ok:
		up.Reset()
	case s.random.IntN(10) == 0 || s.Loop.Draining():
		up.Close()
	default:
		up.SetReadDeadline(s.Loop.Now().After(time.Duration(s.random.IntN(20)) * time.Millisecond))
		s.idle = append(s.idle, up)
		up.Park(s)
	}
	return ok
}

// Lost forgets an upstream connection that expired.
func (s *stress) Lost(c loop.Conn) {
	for i, up := range s.idle {
		if up == c {
			s.idle = append(s.idle[:i], s.idle[i+1:]...)
			break
		}
	}
	c.Close()
}
