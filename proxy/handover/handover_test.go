package handover

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
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
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

// Roles of this program in a child process.
const (
	roleEnv = "HANDOVER_TEST_ROLE"
	pathEnv = "HANDOVER_TEST_PATH"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// play is main in a child.
func play(role string) int {
	if role == "stranger" {
		_, err := Connect(os.Getenv(pathEnv))
		fmt.Println(err)
		return 0
	}
	heir, err := Inherit()
	if err != nil || heir == nil {
		fmt.Fprintln(os.Stderr, "no heir:", err)
		return 1
	}
	switch role {
	case "crash":
		fmt.Fprintln(os.Stderr, "about to crash")
		panic("broken on purpose")
	case "hang":
		time.Sleep(time.Hour)
	case "fail":
		heir.Fail(errors.New("the certificate is gone"))
		return 3
	}
	if err := errors.Join(heir.Loaded(), heir.Serving([]string{"a"})); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if role == "short" {
		fmt.Fprintln(os.Stderr, "it served for a moment")
		return 4
	}
	if err := errors.Join(heir.Mine(), heir.KeepStderr()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "mine, from", heir.Before)
	return 0
}

// house is a giver with what its process would have.
type house struct {
	*Giver
	t       testing.TB
	mu      sync.Mutex
	calls   []string
	sockets int
}

func newHouse(t testing.TB, sockets int, wait time.Duration) *house {
	h := &house{t: t, sockets: sockets}
	h.Giver = NewGiver(Config{
		Patience: wait,
		Legacy:   h.legacy,
		Pause:    func(names []string) { h.note("pause " + strings.Join(names, " ")) },
		Resume:   func() { h.note("resume") },
	})
	return h
}

func (h *house) note(call string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, call)
}

func (h *house) called() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// legacy is as many files as there are sockets, each of which says its number.
func (h *house) legacy() (*Legacy, error) {
	l := &Legacy{Notes: map[string]json.RawMessage{"colour": json.RawMessage(`"blue"`)}}
	for i := range h.sockets {
		file, err := os.CreateTemp(h.t.TempDir(), "")
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprint(file, i); err != nil {
			return nil, err
		}
		l.Sockets = append(l.Sockets, Socket{fmt.Sprint("name ", i%3), file})
	}
	return l, nil
}

func (h *house) at() (path string, told chan error) {
	h.t.Helper()
	path = filepath.Join(h.t.TempDir(), "atlas.sock")
	place, err := Open(path, 0)
	require.NoError(h.t, err)
	told = make(chan error, 100)
	place.Serve(h.Giver, func(_ int, err error) { told <- err })
	h.t.Cleanup(place.Close)
	return path, told
}

func hear(t testing.TB, told chan error) error {
	t.Helper()
	select {
	case err := <-told:
		return err
	case <-time.After(patience):
		t.Fatal("nothing was told")
		return nil
	}
}

// descriptors counts the open ones.
func descriptors(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// More sockets go over than one message of the kernel takes, and each arrives
// under its name, as the file that it was.
func TestHandOver(t *testing.T) {
	for _, n := range []int{0, 1, 17, batchMax, batchMax + 1, 254, 600} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			before := descriptors(t)
			h := newHouse(t, n, patience)
			path, told := h.at()
			heir, err := Connect(path)
			require.NoError(t, err)
			assert.Equal(t, os.Getpid(), heir.Before)
			assert.JSONEq(t, `"blue"`, string(heir.Legacy.Notes["colour"]))
			require.Len(t, heir.Legacy.Sockets, n)
			for i, s := range heir.Legacy.Sockets {
				assert.Equal(t, fmt.Sprint("name ", i%3), s.Name)
				text := make([]byte, 10)
				read, err := s.File.ReadAt(text, 0)
				assert.Equal(t, io.EOF, err)
				assert.Equal(t, strconv.Itoa(i), string(text[:read]))
			}
			taken := heir.Legacy.Take("name 1")
			assert.Len(t, taken, (n+1)/3)
			require.NoError(t, heir.Loaded())
			assert.Empty(t, h.called())
			require.NoError(t, heir.Serving([]string{"name 1"}))
			require.NoError(t, heir.Mine())
			assert.NoError(t, hear(t, told))
			assert.Equal(t, []string{"pause name 1"}, h.called())
			closeAll(taken)
			_, err = Connect(path)
			var refusal *Refusal
			assert.ErrorAs(t, err, &refusal, "it has an heir")
			assert.Eventually(t, func() bool { return descriptors(t) <= before+5 }, patience, time.Millisecond)
		})
	}
}

// Whatever an heir does instead of serving, the giver goes on, knows why, and has
// time for the next one.
func TestHeirFails(t *testing.T) {
	h := newHouse(t, 3, patience)
	path, told := h.at()
	for name, row := range map[string]struct {
		heir func(*Heir)
		why  string
	}{
		"says why":        {func(heir *Heir) { heir.Fail(errors.New("no certificate")) }, "no certificate"},
		"goes at once":    {func(heir *Heir) { heir.Close() }, "it ended before it took over"},
		"goes when ready": {func(heir *Heir) { assert.NoError(t, heir.Loaded()); heir.Close() }, "it ended before it took over"},
		"skips a step":    {func(heir *Heir) { assert.NoError(t, heir.Serving(nil)) }, `the peer said "serving"`},
	} {
		t.Run(name, func(t *testing.T) {
			heir, err := Connect(path)
			require.NoError(t, err)
			defer heir.Close()
			row.heir(heir)
			assert.ErrorContains(t, hear(t, told), row.why)
			assert.Empty(t, h.called())
		})
	}
	t.Run("hangs", func(t *testing.T) {
		h := newHouse(t, 3, 500*time.Millisecond) // in which a busy machine has come so far that it may hang
		path, told := h.at()
		heir, err := Connect(path)
		require.NoError(t, err)
		defer heir.Close()
		assert.ErrorContains(t, hear(t, told), "not ready within 500ms")
		assert.Error(t, heir.Loaded())
		assert.Empty(t, h.called())
	})
	t.Run("goes while it serves", func(t *testing.T) {
		heir, err := Connect(path)
		require.NoError(t, err)
		require.NoError(t, heir.Loaded())
		require.NoError(t, heir.Serving([]string{"name 0"}))
		heir.Close()
		assert.ErrorContains(t, hear(t, told), "it served, and was gone within 1s")
		assert.Equal(t, []string{"pause name 0", "resume"}, h.called())
	})
	t.Run("two at once", func(t *testing.T) {
		first, err := Connect(path)
		require.NoError(t, err)
		_, err = Connect(path)
		assert.ErrorContains(t, err, ErrBusy.Error())
		assert.ErrorIs(t, hear(t, told), ErrBusy)
		first.Close()
		assert.Error(t, hear(t, told))
		again, err := Connect(path)
		require.NoError(t, err)
		again.Close()
		assert.Error(t, hear(t, told))
	})
}

// A giver that ends on its own says so to an heir that is not ready, and leaves its
// place to one that serves. One that dies leaves it to both.
func TestGiverEnds(t *testing.T) {
	give := func(t *testing.T, ctx context.Context) (*Heir, *house, chan error) {
		t.Helper()
		h, told := newHouse(t, 1, patience), make(chan error, 1)
		ours, theirs, err := pair()
		require.NoError(t, err)
		one, err := net.FileConn(ours)
		require.NoError(t, err)
		other, err := net.FileConn(theirs)
		require.NoError(t, err)
		require.NoError(t, errors.Join(ours.Close(), theirs.Close()))
		go func() {
			_, err := h.Give(ctx, one.(*net.UnixConn))
			told <- err
		}()
		heir, err := newHeir(other.(*net.UnixConn))
		require.NoError(t, err)
		t.Cleanup(heir.Close)
		return heir, h, told
	}
	t.Run("before it is ready", func(t *testing.T) {
		ctx, end := context.WithCancel(context.Background())
		heir, h, told := give(t, ctx)
		end()
		assert.ErrorIs(t, hear(t, told), errEnds)
		assert.ErrorContains(t, heir.Loaded(), "this process ends")
		assert.Empty(t, h.called())
	})
	t.Run("while it serves", func(t *testing.T) {
		ctx, end := context.WithCancel(context.Background())
		defer end()
		heir, h, told := give(t, ctx)
		require.NoError(t, heir.Loaded())
		require.NoError(t, heir.Serving([]string{"name 0"}))
		require.Eventually(t, func() bool { return len(h.called()) > 0 }, patience, time.Millisecond)
		end()
		assert.NoError(t, heir.Mine())
		assert.NoError(t, hear(t, told))
		assert.Equal(t, []string{"pause name 0"}, h.called())
	})
	t.Run("it dies", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		place, err := listenPrivately(path)
		require.NoError(t, err)
		defer place.Close()
		died := make(chan error, 1)
		go func() {
			conn, err := place.AcceptUnix()
			if err == nil {
				w := &wire{conn}
				_, err = w.receive(sayHello, patience)
				err = errors.Join(err, w.send(message{Say: sayLegacy}, patience))
				_, lost := w.receive(sayLoaded, patience)
				err = errors.Join(err, lost, conn.Close())
			}
			died <- err
		}()
		heir, err := Connect(path)
		require.NoError(t, err)
		require.NoError(t, heir.Loaded())
		require.NoError(t, <-died)
		assert.NoError(t, heir.Serving(nil))
		assert.NoError(t, heir.Mine())
	})
}

// Peers that speak something else, too much, or nothing.
func TestStrangers(t *testing.T) {
	h := newHouse(t, 1, patience)
	path, told := h.at()
	hello, err := json.Marshal(message{Say: sayHello, Version: version})
	require.NoError(t, err)
	framed := func(n int, body []byte) string {
		return string(append(append(binary.BigEndian.AppendUint32(nil, uint32(n)), magic[:]...), body...))
	}
	for name, row := range map[string]struct{ sent, why string }{
		"another protocol":  {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not speak this protocol"},
		"a huge message":    {framed(4<<30-1, hello), "bytes: 262144 are the most"},
		"half a message":    {framed(len(hello), hello[:5]), "EOF"},
		"half a head":       {framed(len(hello), hello)[:3], "asked for nothing"},
		"no JSON":           {framed(5, []byte("hello")), "invalid character"},
		"the wrong word":    {framed(15, []byte(`{"say":"gimme"}`)), `the peer said "gimme"`},
		"a later version":   {framed(28, []byte(`{"say":"hello","version":99}`)), "version 99"},
		"nothing, and ends": {"", "asked for nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, row.sent)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.UnixConn).CloseWrite())
			assert.ErrorContains(t, hear(t, told), row.why)
		})
	}
	t.Run("nothing, for long", func(t *testing.T) {
		silent, err := net.Dial("unix", path)
		require.NoError(t, err)
		defer silent.Close()
		heir, err := Connect(path) // nobody stands in the way
		require.NoError(t, err)
		heir.Close()
		assert.ErrorContains(t, hear(t, told), "it ended before it took over")
		assert.ErrorContains(t, hear(t, told), "timeout")
	})
	t.Run("too many", func(t *testing.T) {
		var conns []net.Conn
		for range 3 * peersMax {
			conn, err := net.Dial("unix", path)
			require.NoError(t, err)
			conns = append(conns, conn)
		}
		closed := 0
		for _, conn := range conns[peersMax:] {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			if _, err := conn.Read(make([]byte, 1)); err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
				closed++
			}
		}
		assert.Equal(t, 2*peersMax, closed)
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	assert.Empty(t, h.called())
}

// Descriptors that nobody asked for are closed.
func TestUnwantedDescriptors(t *testing.T) {
	h := newHouse(t, 1, patience)
	path, told := h.at()
	before := descriptors(t)
	for range 3 {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		w := &wire{conn.(*net.UnixConn)}
		m := message{Say: sayHello, Version: version, files: []*os.File{os.Stdin, os.Stdout}}
		require.NoError(t, w.send(m, patience))
		assert.ErrorContains(t, hear(t, told), "descriptors")
		require.NoError(t, conn.Close())
	}
	assert.Eventually(t, func() bool { return descriptors(t) <= before }, patience, time.Millisecond)
}

// A process of another user is turned away on both sides, should it come past the
// permissions of the file.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root may start a process of another user")
		return
	}
	dir, err := os.MkdirTemp("/tmp", "handover")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	h := newHouse(t, 1, patience)
	path, told := filepath.Join(dir, "s"), make(chan error, 10)
	place, err := Open(path, 0)
	require.NoError(t, err)
	defer place.Close()
	place.Serve(h.Giver, func(_ int, err error) { told <- err })
	mode, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), mode.Mode().Perm())

	self := filepath.Join(dir, "self") // go test builds it where others may not look
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(self, binary, 0o755))
	stranger := func() string {
		cmd := exec.Command(self)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), roleEnv+"=stranger", pathEnv+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	assert.Contains(t, stranger(), "permission denied")
	require.NoError(t, os.Chmod(path, 0o666))
	assert.Contains(t, stranger(), "belongs to user 0 and not 65534")
	assert.ErrorContains(t, hear(t, told), "belongs to user 65534 and not 0")
	assert.Empty(t, h.called())
}

// A place is nobody's but the first's, and free again when that has ended.
func TestPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atlas.sock")
	h := newHouse(t, 1, patience)
	first, err := Open(path, 0)
	require.NoError(t, err)
	first.Serve(h.Giver, func(int, error) {})
	_, err = Open(path, 0)
	assert.ErrorContains(t, err, "belongs to another process")
	heir, err := Connect(path)
	require.NoError(t, err, "the first one is still there")
	heir.Close()

	second, err := Open(path, os.Getpid()) // as its heir may
	require.NoError(t, err)
	second.Serve(h.Giver, func(int, error) {})
	first.Close()
	heir, err = Connect(path)
	require.NoError(t, err, "the first one took only its own away")
	heir.Close()
	second.Close()
	_, err = os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)

	stale, err := net.Listen("unix", path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	third, err := Open(path, 0)
	require.NoError(t, err, "nobody answers there")
	third.Close()

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = Open(path, 0)
	assert.ErrorContains(t, err, "no socket")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(text))
	_, err = Open(filepath.Join(t.TempDir(), "none", "atlas.sock"), 0)
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(filepath.Join(t.TempDir(), strings.Repeat("x", 100)), 0)
	assert.Error(t, err, "a path that is too long for a socket")
}

func TestDefaultPath(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/atlas:/run/other")
	assert.Equal(t, "/run/atlas/atlas.sock", DefaultPath())
	t.Setenv("RUNTIME_DIRECTORY", "")
	path := DefaultPath()
	if path != "" {
		assert.Equal(t, fmt.Sprintf("/run/user/%d/atlas.sock", os.Geteuid()), path)
	}
}

// What is started here and does not come to serve is told of with all that is known.
func TestRaise(t *testing.T) {
	for role, row := range map[string]struct{ why, status, stderr string }{
		"serve": {},
		"crash": {"before it took over: exit status 2, having printed: panic: broken", "exit status 2", "panic: broken on purpose"},
		"hang":  {"not ready within 500ms", "signal: killed", ""},
		"fail":  {"the certificate is gone", "exit status 3", ""},
		"short": {"it served, and was gone within 1s: exit status 4, having printed: it served for a moment",
			"exit status 4", "it served for a moment"},
	} {
		t.Run(role, func(t *testing.T) {
			t.Setenv(roleEnv, role)
			wait := patience
			if role == "hang" {
				wait = 500 * time.Millisecond
			}
			h := newHouse(t, 100, wait)
			program, err := Self()
			require.NoError(t, err)
			program.Args = nil
			printed, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			require.NoError(t, err)
			defer printed.Close()
			pid, err := h.Raise(context.Background(), program, printed)
			if role == "serve" {
				require.NoError(t, err)
				assert.NotZero(t, pid)
				assert.Eventually(t, func() bool {
					text, err := os.ReadFile(printed.Name())
					return err == nil && bytes.Contains(text, fmt.Appendf(nil, "mine, from %d", os.Getpid()))
				}, patience, 5*time.Millisecond, "what it prints comes without us now")
				return
			}
			var crash *Crash
			require.ErrorAs(t, err, &crash)
			assert.ErrorContains(t, crash, row.why)
			assert.Equal(t, row.status, crash.Status)
			assert.Contains(t, crash.Stderr, row.stderr)
			text, err := os.ReadFile(printed.Name())
			require.NoError(t, err)
			assert.Contains(t, string(text), row.stderr, "it is printed as well")
		})
	}
	t.Run("no program", func(t *testing.T) {
		before := descriptors(t)
		_, err := newHouse(t, 1, patience).Raise(context.Background(), Program{Path: "/no/such/program"}, os.Stderr)
		assert.ErrorIs(t, err, os.ErrNotExist)
		assert.LessOrEqual(t, descriptors(t), before)
	})
}

func TestInheritNothing(t *testing.T) {
	heir, err := Inherit()
	assert.NoError(t, err)
	assert.Nil(t, heir)
	t.Setenv(inherited, "1") // of a process that is not our parent
	heir, err = Inherit()
	assert.NoError(t, err)
	assert.Nil(t, heir)
	_, left := os.LookupEnv(inherited)
	assert.False(t, left)
}
