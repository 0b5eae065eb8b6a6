package accesslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

const patience = 20 * time.Second

// rig is a log of one worker.
type rig struct {
	*Log
	t     testing.TB
	told  *looptest.Printed
	count *stats.Stats
	n     int
}

func start(t testing.TB, path string) *rig {
	t.Helper()
	r := &rig{t: t, told: new(looptest.Printed), count: new(stats.Stats)}
	r.Log = newLog([]*stats.Stats{r.count}, slog.New(slog.NewTextHandler(r.told, nil)),
		pace{retry: 10 * time.Millisecond, warn: 20 * time.Millisecond})
	t.Cleanup(func() { r.Close(patience) })
	r.apply(path)
	return r
}

func (r *rig) apply(path string) {
	r.t.Helper()
	format, err := ParseFormat(JSON)
	require.NoError(r.t, err)
	opened, err := Open(Settings{Format: format, Path: path})
	require.NoError(r.t, err)
	r.Apply(opened)
}

// push logs numbered records.
func (r *rig) push(count int) {
	var record Record
	for range count {
		record.Begin(moment, HTTP11)
		record.SetString(Target, fmt.Sprint("/", r.n))
		record.SetString(Agent, strings.Repeat("x", 100))
		r.Ring(0).Push(&record)
		r.n++
	}
}

// eventually waits for what other goroutines do.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for until := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			r.t.Fatalf("never: %s; told: %s", what, r.told)
		}
	}
}

func (r *rig) tells(what string) {
	r.t.Helper()
	r.eventually(what, func() bool { return strings.Contains(r.told.String(), what) })
}

// targets are those of the lines of files, each of which must be whole.
func (r *rig) targets(files ...string) (found []string) {
	r.t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(r.t, err)
		found = append(found, targetsOf(r.t, text)...)
	}
	return found
}

func targetsOf(t testing.TB, text []byte) (found []string) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var members struct{ Target string }
		require.NoError(t, json.Unmarshal(line, &members), "%q", line)
		require.True(t, bytes.HasSuffix(line, []byte("\n")), "%q", line)
		found = append(found, members.Target)
	}
	return found
}

// numbered are the targets that push makes.
func numbered(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint("/", i))
	}
	return all
}

func TestWrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	r := start(t, file)
	r.push(1)
	r.eventually("the line", func() bool { return len(r.targets(file)) == 1 })
	r.push(1000)
	r.Close(patience) // writes what is queued
	assert.Equal(t, numbered(0, 1001), r.targets(file))
	stat, err := os.Stat(file)
	require.NoError(t, err)
	assert.Zero(t, stat.Mode().Perm()&^0o640, stat.Mode())
	assert.Empty(t, r.told.String())
	assert.Zero(t, r.count.LogDropped.Load())
}

// Who moves the file away and calls Reopen loses nothing, however much is written.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access.log")
	r := start(t, file)
	files := []string{}
	for i := range 20 {
		r.push(200)
		moved := filepath.Join(dir, fmt.Sprint("access.log.", i))
		if r.eventually("the file", func() bool { _, err := os.Stat(file); return err == nil }); i > 0 {
			require.NoError(t, os.Rename(file, moved))
			files = append(files, moved)
		}
		r.Reopen()
	}
	r.push(10)
	r.Close(patience)
	assert.Equal(t, numbered(0, 4010), r.targets(append(files, file)...))
	assert.Zero(t, r.count.LogDropped.Load())
}

// A file that cannot be opened again stays in use.
func TestReopenFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	require.NoError(t, os.Mkdir(dir, 0o755))
	file, moved := filepath.Join(dir, "access.log"), dir+".old"
	r := start(t, file)
	require.NoError(t, os.Rename(dir, moved))
	r.Reopen()
	r.tells("cannot open it again")
	r.push(3)
	r.Close(patience)
	assert.Equal(t, numbered(0, 3), r.targets(filepath.Join(moved, "access.log")))
}

// A change of the configuration takes effect between two lines.
func TestApply(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	r := start(t, first)
	r.push(5)
	r.eventually("the lines", func() bool { return len(r.targets(first)) == 5 })
	r.apply(second)
	r.push(5)
	r.eventually("the others", func() bool { return len(r.targets(first, second)) == 10 })
	assert.True(t, r.Ring(0).On())
	off, err := Open(Settings{})
	require.NoError(t, err)
	r.Apply(off)
	assert.False(t, r.Ring(0).On())
	r.push(5) // of exchanges that were under way: nobody wants them
	r.Close(patience)
	assert.Equal(t, numbered(0, 10), r.targets(first, second))
}

func TestOpenFails(t *testing.T) {
	_, err := Open(Settings{Format: new(Format), Path: filepath.Join(t.TempDir(), "no", "such")})
	assert.ErrorContains(t, err, "[access_log] path: open ")
}

// A full disk tears no line: what was not written follows when there is room.
func TestFullDisk(t *testing.T) {
	r := start(t, "/dev/full")
	r.push(100)
	r.tells(`level=WARN msg="access log: it cannot be written" path=/dev/full error=`)
	r.push(3 * ringBytes / 300)
	r.tells("access log: lines dropped")
	dropped := r.count.LogDropped.Load()
	assert.NotZero(t, dropped)
	file := filepath.Join(t.TempDir(), "access.log")
	r.apply(file)
	r.tells("access log: it is written again")
	r.tells("access log: it keeps up again")
	r.Close(patience)
	assert.EqualValues(t, r.n, int64(len(r.targets(file)))+dropped)
	assert.Equal(t, numbered(0, 100), r.targets(file)[:100])
	assert.Less(t, strings.Count(r.told.String(), "cannot be written"), 5, "it is told once")
}

// torn is a disk that is full again and again, in the middle of lines.
type torn struct {
	looptest.Printed
	calls int
}

func (w *torn) Write(p []byte) (int, error) {
	w.calls++
	if n := 37 * w.calls % 1000; w.calls%3 != 0 && n < len(p) {
		_, _ = w.Printed.Write(p[:n])
		return n, syscall.ENOSPC
	}
	return w.Printed.Write(p)
}

func TestTornWrites(t *testing.T) {
	r := &rig{t: t, told: new(looptest.Printed), count: new(stats.Stats)}
	r.Log = newLog([]*stats.Stats{r.count}, slog.New(slog.NewTextHandler(r.told, nil)),
		pace{retry: time.Microsecond, warn: time.Hour})
	disk := new(torn)
	o := &output{settings: Settings{Format: new(Format)}, to: disk, regular: true}
	r.Apply(&Opened{o})
	for range 50 {
		r.push(50)
		time.Sleep(time.Millisecond)
	}
	r.eventually("all to be written", func() bool { return strings.Count(disk.String(), "\n") == 2500 })
	r.Close(patience)
	assert.Equal(t, numbered(0, 2500), targetsOf(t, []byte(disk.String())))
}

// A FIFO that nobody reads holds up neither the start, nor a push, nor the end.
func TestFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	r := start(t, fifo)
	r.push(10)
	r.tells("the FIFO has no reader")
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	r.tells("it is written again")
	text := make([]byte, 1<<16)
	n, err := reader.Read(text)
	require.NoError(t, err)
	assert.Equal(t, numbered(0, 10), targetsOf(t, text[:n]))

	// It has a reader that reads nothing: the pipe fills up, then the ring.
	r.push(2 * ringBytes / 300)
	r.tells("lines dropped")
	began := time.Now()
	r.Close(10 * time.Millisecond)
	assert.Less(t, time.Since(began), patience)
	require.NoError(t, reader.Close())
}

// What others write to the same pipe comes between two lines, not into one.
func TestPieces(t *testing.T) {
	text := []byte(strings.Repeat("a short line\n", 1000) + strings.Repeat("x", 2*pieceBytes) + "\nend\n")
	for rest := text; len(rest) > 0; {
		n := wholeLines(rest)
		assert.Equal(t, byte('\n'), rest[n-1])
		assert.True(t, n <= pieceBytes || bytes.IndexByte(rest, '\n') == n-1)
		rest = rest[n:]
	}
}
