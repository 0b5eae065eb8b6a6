package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Place is where processes of this user meet: a socket at a path.
type Place struct {
	path string
	ln   *net.UnixListener
	file os.FileInfo // of the socket: the path may become another process's
	end  context.CancelFunc
	done sync.WaitGroup
}

// peersMax bounds the peers that are talked to at once.
const peersMax = 8

// DefaultPath is where the socket is where nobody says: the directory that systemd
// made for the service, or that of a user who has logged in; "" where there is
// neither.
func DefaultPath() string {
	if dirs := os.Getenv("RUNTIME_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":")
		return filepath.Join(first, "atlas.sock")
	}
	dir := filepath.Join("/run/user", strconv.Itoa(os.Geteuid()))
	if folder, err := os.Stat(dir); err == nil && folder.IsDir() {
		return filepath.Join(dir, "atlas.sock")
	}
	return ""
}

// Open puts the socket there. One that another process answers at stays, and is an
// error, unless that is the process before this one; before is 0 where there is
// none. What a process that has ended left there is replaced.
func Open(path string, before int) (*Place, error) {
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := free(path, before); err != nil {
		return nil, err
	}
	// Under another name first: so there is always somebody to be met at the path.
	temporary := path + "." + strconv.Itoa(os.Getpid())
	_ = os.Remove(temporary) // a process that had our number and was killed right here
	ln, err := listenPrivately(temporary)
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	p := &Place{path: path, ln: ln}
	if p.file, err = os.Lstat(temporary); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close(), os.Remove(temporary))
	}
	return p, nil
}

// free reports that nobody is at a path whose place could not be taken.
func free(path string, before int) error {
	file, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case file.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, answerTime)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, pid, err := peerOf(conn.(*net.UnixConn)); err != nil || pid != before {
		return fmt.Errorf("%s belongs to another process, %d, which goes on", path, pid)
	}
	return nil
}

// Serve has who comes there talk to the giver. told is told how each talk ended:
// without an error the process has an heir.
func (p *Place) Serve(g *Giver, told func(pid int, err error)) {
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	turns := make(chan struct{}, peersMax)
	p.done.Go(func() {
		for {
			conn, err := p.ln.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(100 * time.Millisecond) // no descriptors, mostly
				continue
			}
			select {
			case turns <- struct{}{}:
			default:
				_ = conn.Close() // too many at once
				continue
			}
			p.done.Go(func() {
				defer func() { <-turns }()
				told(g.Give(ctx, conn))
			})
		}
	})
}

// Close leaves the place, if it is still ours. Talks that go on are broken off.
func (p *Place) Close() {
	if p.end != nil {
		p.end()
	}
	_ = p.ln.Close()
	p.done.Wait()
	if unlock, err := lockFolder(filepath.Dir(p.path)); err == nil {
		defer unlock()
	}
	if file, err := os.Lstat(p.path); err == nil && os.SameFile(file, p.file) {
		_ = os.Remove(p.path) // it is a socket that nobody answers at
	}
}
