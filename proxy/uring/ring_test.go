//go:build linux

package uring

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// requireRing skips only where the kernel is too old or says no, and never
// where CI said that the ring has to run.
func requireRing(t testing.TB) {
	t.Helper()
	err := Probe()
	if err == nil {
		return
	}
	if os.Getenv("REQUIRE_URING") != "" {
		t.Fatalf("REQUIRE_URING is set: %v", err)
	}
	t.Skip(err)
}

// open gives a ring to a test on a locked thread.
func open(t testing.TB, cfg Config) *Ring {
	t.Helper()
	requireRing(t)
	runtime.LockOSThread()
	r, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, r.Close())
		runtime.UnlockOSThread()
	})
	return r
}

func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// next waits for one completion.
func next(t testing.TB, r *Ring) Completion {
	t.Helper()
	c, err := r.await()
	require.NoError(t, err)
	return c
}

func TestOpenRejectsSizes(t *testing.T) {
	for _, cfg := range []Config{{}, {Entries: 8, Completions: 4}, {Entries: -1, Completions: 8}} {
		_, err := Open(cfg)
		assert.Error(t, err, "%+v", cfg)
	}
}

func TestSendAndReceiveOnce(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	a, b := pair(t)
	r.Send(a, []byte("hello"), 1)
	into := make([]byte, 16)
	r.Recv(b, into, 2)
	got := map[uint64]int32{}
	for range 2 {
		c := next(t, r)
		got[c.UserData] = c.Result
		assert.False(t, c.More())
	}
	assert.Equal(t, map[uint64]int32{1: 5, 2: 5}, got)
	assert.Equal(t, "hello", string(into[:5]))
}

func TestSendMessage(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	a, b := pair(t)
	m := new(Message)
	text := append(make([]byte, 0, 16), "one "...)
	m.Append(text)
	m.Extend(copy(text[4:9], "two, "))
	m.Append([]byte("three"))
	require.Equal(t, 2, m.Segments())
	r.SendMessage(a, m, 7)
	assert.EqualValues(t, 14, next(t, r).Result)
	into := make([]byte, 32)
	n, err := unix.Read(b, into)
	require.NoError(t, err)
	assert.Equal(t, "one two, three", string(into[:n]))
}

func TestMessageAdvance(t *testing.T) {
	whole := []byte("abcdefghij")
	for sent := range len(whole) + 1 {
		m := new(Message)
		m.Append(whole[:3])
		m.Append(whole[3:4])
		m.Append(whole[4:])
		m.Advance(sent)
		var rest []byte
		for m.Segments() > 0 {
			first := m.First()
			rest = append(rest, first...)
			m.Advance(len(first))
		}
		assert.Equal(t, string(whole[sent:]), string(rest), "after %d bytes", sent)
	}
}

// Multishot receive: one operation, many completions, buffers that come back
// in the order the kernel took them, ENOBUFS when there is none, and a re-arm
// after Put.
func TestRecvMultishotUntilBuffersRunOut(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	bufs, err := r.ProvideBuffers(2, 4)
	require.NoError(t, err)
	a, b := pair(t)
	_, err = unix.Write(b, []byte("abcdefghijkl"))
	require.NoError(t, err)

	r.RecvMultishot(a, 1)
	var got bytes.Buffer
	var held []uint16
	for {
		c := next(t, r)
		if c.Result < 0 {
			assert.Equal(t, unix.ENOBUFS, unix.Errno(-c.Result))
			assert.False(t, c.More())
			break
		}
		id, ok := c.Buffer()
		require.True(t, ok)
		got.Write(bufs.Take(id, int(c.Result)))
		held = append(held, id)
	}
	assert.Equal(t, "abcdefgh", got.String())
	assert.Equal(t, 0, bufs.Free())
	for _, id := range held {
		bufs.Put(id)
	}
	assert.Equal(t, 2, bufs.Free())

	r.RecvMultishot(a, 2)
	c := next(t, r)
	id, _ := c.Buffer()
	assert.Equal(t, "ijkl", string(bufs.Take(id, int(c.Result))))
	assert.True(t, c.More())
	bufs.Put(id)

	r.CancelAll(a, 3)
	results := map[uint64]int32{}
	for range 2 {
		c := next(t, r)
		results[c.UserData] = c.Result
	}
	assert.Equal(t, map[uint64]int32{2: -int32(unix.ECANCELED), 3: 1}, results)
}

// A socket's ends are named as the net package names them, whatever the family.
func TestNames(t *testing.T) {
	unixPath := filepath.Join(t.TempDir(), "s")
	for _, where := range [][2]string{{"tcp4", "127.0.0.1:0"}, {"tcp", "[::]:0"}, {"unix", unixPath}} {
		t.Run(where[0]+" "+where[1], func(t *testing.T) {
			listener, err := net.Listen(where[0], where[1])
			require.NoError(t, err)
			defer listener.Close()
			client, err := net.Dial(where[0], strings.Replace(listener.Addr().String(), "[::]", "127.0.0.1", 1))
			require.NoError(t, err)
			defer client.Close()
			server, err := listener.Accept()
			require.NoError(t, err)
			defer server.Close()
			conn, err := server.(syscall.Conn).SyscallConn()
			require.NoError(t, err)
			a := new(Address)
			require.NoError(t, conn.Control(func(fd uintptr) {
				require.NoError(t, a.SetLocal(int(fd)))
				assert.Equal(t, addrPort(server.LocalAddr()), a.AddrPort())
				require.NoError(t, a.SetPeer(int(fd)))
				assert.Equal(t, addrPort(server.RemoteAddr()), a.AddrPort())
			}))
		})
	}
	assert.Equal(t, unix.EBADF, new(Address).SetPeer(-1))
	assert.False(t, new(Address).AddrPort().IsValid())
}

// addrPort is what is to come out for an address; nothing for a Unix socket's.
func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func TestAcceptAndConnect(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(listener)
	require.NoError(t, unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(listener, 8))
	name, err := unix.Getsockname(listener)
	require.NoError(t, err)

	r.AcceptMultishot(listener, 1)
	to := new(Address)
	to.Set(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port)))
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(client)
	r.Connect(client, to, 2)
	for range 2 {
		c := next(t, r)
		if c.UserData == 2 {
			assert.Zero(t, c.Result)
			continue
		}
		assert.True(t, c.More(), "accept stays armed")
		flags, err := unix.FcntlInt(uintptr(c.Result), unix.F_GETFL, 0)
		require.NoError(t, err)
		assert.NotZero(t, flags&unix.O_NONBLOCK)
		fdFlags, err := unix.FcntlInt(uintptr(c.Result), unix.F_GETFD, 0)
		require.NoError(t, err)
		assert.NotZero(t, fdFlags&unix.FD_CLOEXEC)
		require.NoError(t, unix.Close(int(c.Result)))
	}
	r.Cancel(1, 3)
	for range 2 {
		next(t, r)
	}
}

func TestAddressUnix(t *testing.T) {
	to := new(Address)
	assert.Error(t, to.SetUnix(""))
	assert.Error(t, to.SetUnix(string(make([]byte, 200))))
	assert.NoError(t, to.SetUnix("/run/x.sock"))
}

func TestWaitTimesOut(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	require.NoError(t, r.Wait(time.Millisecond))
	_, ok := r.Next()
	assert.False(t, ok)
}

func TestPollAndReadEventfd(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(t, err)
	defer unix.Close(fd)
	into := make([]byte, 8)
	r.Poll(fd, unix.POLLIN, 1)
	r.Read(fd, into, 2)
	require.NoError(t, r.Submit())
	_, err = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	require.NoError(t, err)
	seen := map[uint64]bool{}
	for range 2 {
		c := next(t, r)
		assert.Positive(t, c.Result)
		seen[c.UserData] = true
	}
	assert.Len(t, seen, 2)
}

// More operations than entries: the queue is submitted on the way, none lost.
func TestFullQueueIsSubmitted(t *testing.T) {
	r := open(t, Config{Entries: 4, Completions: 8})
	a, b := pair(t)
	const sends = 100
	for i := range sends {
		r.Send(a, []byte("x"), uint64(i+1))
	}
	require.NoError(t, r.Submit())
	seen := map[uint64]bool{}
	for len(seen) < sends {
		c := next(t, r)
		require.EqualValues(t, 1, c.Result)
		require.False(t, seen[c.UserData])
		seen[c.UserData] = true
	}
	into := make([]byte, 2*sends)
	n, err := unix.Read(b, into)
	require.NoError(t, err)
	assert.Equal(t, sends, n)
}

// More completions than the queue holds are kept by the kernel, and counted here.
func TestOverflowIsCounted(t *testing.T) {
	r := open(t, Config{Entries: 4, Completions: 4})
	a, b := pair(t)
	const sends = 12
	for i := range sends {
		if i == 4 {
			assert.Zero(t, r.Overflows())
		}
		r.Send(a, []byte("x"), uint64(i+1))
		require.NoError(t, r.Submit())
	}
	assert.Positive(t, r.Overflows())
	for range sends {
		require.EqualValues(t, 1, next(t, r).Result)
	}
	n, err := unix.Read(b, make([]byte, 2*sends))
	require.NoError(t, err)
	assert.Equal(t, sends, n)
}

// Rule R2: another thread that enters gets EEXIST, told as what it is.
func TestOtherThreadIsRefused(t *testing.T) {
	r := open(t, Config{Entries: 4, Completions: 8})
	a, _ := pair(t)
	r.Send(a, []byte("x"), 1)
	answer := make(chan error)
	go func() {
		runtime.LockOSThread()
		answer <- r.Submit()
	}()
	err := <-answer
	assert.ErrorIs(t, err, unix.EEXIST)
	assert.ErrorContains(t, err, "another thread")
	next(t, r)
}

func TestProvideBuffersRejects(t *testing.T) {
	r := open(t, Config{Entries: 4, Completions: 8})
	for _, n := range []int{0, 3, 1 << 16} {
		_, err := r.ProvideBuffers(n, 64)
		assert.Error(t, err, "%d buffers", n)
	}
}

func TestAllocsPerOp(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	a, b := pair(t)
	p, into := []byte("hello"), make([]byte, 16)
	perRun := testing.AllocsPerRun(100, func() {
		r.Send(a, p, 1)
		r.Recv(b, into, 2)
		for range 2 {
			if err := r.Wait(time.Second); err != nil {
				t.Fatal(err)
			}
			r.Next()
		}
	})
	assert.Zero(t, perRun)
}

func TestFixNamesTheCause(t *testing.T) {
	assert.Equal(t, fixKernel, fixFor(unix.EINVAL))
	assert.Equal(t, fixMemory, fixFor(unix.ENOMEM))
	assert.Contains(t, fixFor(unix.EPERM), "seccomp")
	assert.Contains(t, fixFor(unix.ENOSYS), "6.1")
	err := error(&Unavailable{Feature: "IORING_RECV_MULTISHOT", Since: "6.0", Err: unix.EINVAL, Fix: fixKernel})
	assert.ErrorIs(t, err, unix.EINVAL)
	assert.Equal(t, "io_uring unavailable: IORING_RECV_MULTISHOT (Linux 6.0): invalid argument; "+fixKernel, err.Error())
}

// Under a filter that refuses io_uring_setup, Probe names seccomp. The filter
// stays for the life of a thread and its children, so a child process has it.
func TestProbeUnderSeccomp(t *testing.T) {
	if os.Getenv("URING_TEST_SECCOMP") != "" {
		runtime.LockOSThread()
		require.NoError(t, forbidRing())
		err := probe()
		var missing *Unavailable
		require.True(t, errors.As(err, &missing), "%v", err)
		assert.Equal(t, fixSeccomp, missing.Fix)
		assert.ErrorIs(t, err, unix.EPERM)
		return
	}
	requireRing(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestProbeUnderSeccomp$")
	cmd.Env = append(os.Environ(), "URING_TEST_SECCOMP=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func BenchmarkNopTurn(b *testing.B) {
	r := open(b, Config{Entries: 8, Completions: 16})
	x, _ := pair(b)
	for b.Loop() {
		r.Poll(x, unix.POLLOUT, 1)
		if err := r.Wait(-1); err != nil {
			b.Fatal(err)
		}
		r.Next()
	}
}

// Files are read and advised about on the kernel's own threads.
func TestFileOperations(t *testing.T) {
	r := open(t, Config{Entries: 8, Completions: 16})
	path := t.TempDir() + "/file"
	content := bytes.Repeat([]byte("0123456789"), 1000)
	require.NoError(t, os.WriteFile(path, content, 0o644))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	into := make([]byte, 5000)
	r.ReadFile(int(f.Fd()), into, 7000, 1)
	c := next(t, r)
	assert.EqualValues(t, 1, c.UserData)
	require.EqualValues(t, 3000, c.Result, "up to the end")
	assert.Equal(t, content[7000:], into[:3000])
	r.ReadFile(int(f.Fd()), into, 10_000, 2)
	assert.Zero(t, next(t, r).Result)
	r.Fadvise(int(f.Fd()), 0, 4096, unix.FADV_WILLNEED, 3)
	c = next(t, r)
	assert.EqualValues(t, 3, c.UserData)
	assert.Zero(t, c.Result)
}

// Here everything is there, and under a filter as Docker's nothing is, with the fix
// at what is refused and nowhere else.
func TestSurvey(t *testing.T) {
	requireRing(t)
	all := Survey()
	assert.Greater(t, len(all), 10)
	for _, f := range all {
		assert.NoError(t, f.Err, f.Feature)
		assert.NotEmpty(t, f.Since, f.Feature)
	}
	answer := make(chan []Unavailable)
	go func() {
		runtime.LockOSThread() // the filter ends with the thread
		if err := forbidRing(); err != nil {
			answer <- nil
			return
		}
		answer <- survey()
	}()
	forbidden := <-answer
	require.Len(t, forbidden, len(all))
	for i, f := range forbidden {
		assert.Equal(t, all[i].Feature, f.Feature)
		assert.Error(t, f.Err)
		assert.Equal(t, i < len(setupSteps), f.Fix != "", f.Feature)
	}
	assert.ErrorIs(t, forbidden[0].Err, unix.EPERM)
	assert.Contains(t, forbidden[0].Fix, "seccomp")
}
