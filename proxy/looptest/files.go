package looptest

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

var fileTests = map[string]func(*Env){
	"send a file that is not in memory":          sendColdFile,
	"close while a file is brought into memory":  closeWhileCold,
	"stop while files are brought into memory":   stopWhileCold,
	"a file that shrinks before it is in memory": coldFileShrinks,
	"read a file": readFile,
	"many files are sent at once, each of them to all":  sendManyFiles,
	"a directory whose name was taken by another":       directoryMoves,
	"links that are changed while they are followed":    linksChange,
	"names that lead out while directories are renamed": renamesWhileOpened,
}

// load is Dir.Load on a helper, for tasks.
func (e *Env) load(d *loop.Dir, name string, bytesMax int64) (stat loop.Stat, bytes []byte, f *loop.File, err error) {
	e.Loop.Off(func() { stat, bytes, f, err = d.Load(name, bytesMax, bytesMax) })
	return stat, bytes, f, err
}

// look is Dir.Look on a helper.
func (e *Env) look(d *loop.Dir, name string) (stat loop.Stat, err error) {
	e.Loop.Off(func() { stat, err = d.Look(name) })
	return stat, err
}

// sendsFile serves a file to every client that says anything, then closes.
func (e *Env) sendsFile(open func() *loop.File, size int) (address string) {
	return e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		n, err := c.SendFile(f, 0, f.Size)
		assert.NoError(e, err)
		assert.EqualValues(e, size, n)
		return false
	})
}

// readWhole wants exactly content, which is too long to be printed.
func (e *Env) readWhole(c net.Conn, content []byte) {
	e.Helper()
	got := make([]byte, len(content))
	n, err := io.ReadFull(c, got)
	require.NoError(e, err, "after %d bytes", n)
	require.True(e, bytes.Equal(content, got))
}

func sendColdFile(e *Env) {
	content := pattern(3<<20 + 17)
	path, open := e.file(content)
	address := e.sendsFile(open, len(content))
	for range 2 {
		out := e.Evict(path)
		cold := e.Loop.Counters().Cold.Load()
		c := e.Dial(address)
		e.write(c, "go")
		e.readWhole(c, content)
		if out {
			assert.Greater(e, e.Loop.Counters().Cold.Load(), cold, "it was read on the worker")
		}
	}
}

// closeWhileCold closes connections while what they send is brought into memory,
// a bit later each time.
func closeWhileCold(e *Env) {
	path, open := e.file(make([]byte, 1<<20))
	for i := range 40 {
		e.Evict(path)
		_, c := e.peers()
		var f *loop.File
		e.Task(func() { f = open() })
		end := []func(loop.Conn){loop.Conn.Close, loop.Conn.Reset}[i%2]
		e.Task(func() {
			sender := e.Loop.Go(func() {
				for range 100 { // more than the socket holds
					if _, err := c.SendFile(f, 0, f.Size); err != nil {
						return
					}
				}
				assert.Fail(e, "all was sent to who does not read")
			})
			e.Loop.Sleep(time.Duration(i) * 20 * time.Microsecond)
			end(c)
			assert.NoError(e, sender.Join())
		})
		f.Close()
	}
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

// stopWhileCold stops the worker while many pieces are brought into memory.
func stopWhileCold(e *Env) {
	path, open := e.file(make([]byte, 4<<20))
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		_, err := c.SendFile(f, 0, f.Size)
		return err == nil
	})
	e.Evict(path)
	for range 20 {
		e.write(e.Dial(address), "go")
	}
	e.eventually("a first one to send", func() bool { return e.Loop.Counters().Tasks.Load() > 0 })
	e.Loop.Stop()
	wait(e, "worker", e.Loop.Wait)
	assert.Empty(e, e.panics)
}

func coldFileShrinks(e *Env) {
	content := pattern(2 << 20)
	path, open := e.file(content)
	var f *loop.File
	e.Task(func() { f = open() })
	defer func() { f.Close() }()
	e.Evict(path)
	require.NoError(e, os.Truncate(path, 700_000))
	sent := make(chan int64, 1)
	address := e.Serve(func(c loop.Conn) bool {
		n, err := c.SendFile(f, 0, f.Size)
		assert.NoError(e, err)
		sent <- n
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.readWhole(c, content[:700_000])
	assert.EqualValues(e, 700_000, <-sent)
}

func readFile(e *Env) {
	content := pattern(300_000)
	path, open := e.file(content)
	for range 2 { // from memory, then from the disk
		e.Task(func() {
			f := open()
			defer f.Close()
			for off := 0; off < len(content); off += 100_000 {
				p := make([]byte, 100_000)
				n, err := f.ReadAt(e.Loop, p, int64(off))
				assert.NoError(e, err)
				assert.Equal(e, content[off:off+100_000], p[:n])
			}
			p := make([]byte, 100)
			n, err := f.ReadAt(e.Loop, p, 299_990)
			assert.Equal(e, io.EOF, err)
			assert.Equal(e, content[299_990:], p[:n])
			n, err = f.ReadAt(e.Loop, p, 300_000)
			assert.Equal(e, io.EOF, err)
			assert.Zero(e, n)
		})
		e.Evict(path)
	}
}

func sendManyFiles(e *Env) {
	content := pattern(2<<20 + 1)
	path, open := e.file(content)
	address := e.sendsFile(open, len(content))
	e.Evict(path)
	const clients = 20
	got := make(chan string, clients)
	for range clients {
		c := e.Dial(address)
		go func() {
			_, err := c.Write([]byte("go"))
			text, readErr := io.ReadAll(c)
			if err != nil || readErr != nil {
				text = nil
			}
			got <- string(text)
		}()
	}
	for range clients {
		assert.True(e, string(content) == <-got)
	}
}

// An open directory is the one that was opened, whatever becomes of its name.
func directoryMoves(e *Env) {
	top := e.TempDir()
	served := filepath.Join(top, "served")
	require.NoError(e, os.Mkdir(served, 0o755))
	require.NoError(e, os.WriteFile(filepath.Join(served, "a"), []byte("first"), 0o644))
	root, err := loop.OpenDir(served)
	require.NoError(e, err)
	defer func() { assert.NoError(e, root.Close()) }()
	require.NoError(e, os.Rename(served, filepath.Join(top, "moved")))
	require.NoError(e, os.Mkdir(served, 0o755))
	require.NoError(e, os.WriteFile(filepath.Join(served, "a"), []byte("second"), 0o644))
	_, bytes, _, err := root.Load("a", 100, 100)
	assert.NoError(e, err)
	assert.Equal(e, "first", string(bytes))
}

// linksChange: a link that points inside one moment and outside the next is never
// followed out.
func linksChange(e *Env) {
	top := e.TempDir()
	served := filepath.Join(top, "served")
	require.NoError(e, os.Mkdir(served, 0o755))
	require.NoError(e, os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o644))
	require.NoError(e, os.WriteFile(filepath.Join(served, "real"), []byte("fine"), 0o644))
	root, err := loop.OpenDir(served)
	require.NoError(e, err)
	defer func() { assert.NoError(e, root.Close()) }()
	e.whileChanging(func(i int) {
		to := []string{"real", "../secret", filepath.Join(top, "secret")}[i%3]
		assert.NoError(e, os.Symlink(to, filepath.Join(served, "new")))
		assert.NoError(e, os.Rename(filepath.Join(served, "new"), filepath.Join(served, "link")))
	}, func() {
		if _, bytes, _, err := root.Load("link", 100, 100); err == nil {
			assert.Equal(e, "fine", string(bytes))
		} else {
			assert.True(e, loop.NotFound(err), "%v", err)
		}
	})
}

// renamesWhileOpened: "..", in a link, is resolved while the directory that it
// stands in moves out and back.
func renamesWhileOpened(e *Env) {
	top := e.TempDir()
	served := filepath.Join(top, "served")
	require.NoError(e, os.MkdirAll(filepath.Join(served, "a/b"), 0o755))
	require.NoError(e, os.MkdirAll(filepath.Join(top, "outside"), 0o755))
	require.NoError(e, os.WriteFile(filepath.Join(top, "file"), []byte("secret"), 0o644))
	require.NoError(e, os.WriteFile(filepath.Join(served, "file"), []byte("fine"), 0o644))
	require.NoError(e, os.Symlink("../../file", filepath.Join(served, "a/b/up")))
	root, err := loop.OpenDir(served)
	require.NoError(e, err)
	defer func() { assert.NoError(e, root.Close()) }()
	e.whileChanging(func(i int) {
		inside, outside := filepath.Join(served, "a/b"), filepath.Join(top, "outside/b")
		if i%2 == 1 {
			inside, outside = outside, inside
		}
		assert.NoError(e, os.Rename(inside, outside))
	}, func() {
		if _, bytes, _, err := root.Load("a/b/up", 100, 100); err == nil {
			assert.Equal(e, "fine", string(bytes))
		}
	})
}

// whileChanging calls look many times while another goroutine calls change.
func (e *Env) whileChanging(change func(i int), look func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				change(i)
			}
		}
	}()
	for range 2000 {
		look()
	}
	close(stop)
	<-stopped
}
