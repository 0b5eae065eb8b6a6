package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/server"
)

// listener is the socket, with a bound on the connections that are open at once.
type listener struct {
	net.Listener
	remote bool   // others than this machine can reach it
	path   string // of a Unix socket
	file   fs.FileInfo
	guests *guests
}

// listen opens what the configuration names, or says what is wrong with it.
func listen(cfg *config.Admin, takeover bool) (*listener, error) {
	l := &listener{
		path:   config.UnixPath(cfg.Address),
		guests: newGuests(guestsMax(server.DescriptorsMax())),
	}
	var err error
	if l.path != "" {
		err = l.listenUnix(cfg, takeover)
	} else {
		err = l.listenTCP(cfg.Address, takeover)
	}
	if err != nil {
		return nil, &server.KeyError{Key: "admin.address", Err: listenError(cfg.Address, err)}
	}
	return l, nil
}

// taken reports that somebody listens at an address.
func taken(address string) bool {
	if path := config.UnixPath(address); path != "" {
		return errors.Is(vacant(path), syscall.EADDRINUSE)
	}
	probe, err := net.Listen(loop.Network(address), address)
	if err == nil {
		_ = probe.Close() // nobody has been told of it
	}
	return errors.Is(err, syscall.EADDRINUSE)
}

// listenTCP shares the port with other processes of the same user, so that one may
// take the place of another. Without a takeover nobody may be there.
func (l *listener) listenTCP(address string, takeover bool) error {
	if _, port, _ := net.SplitHostPort(address); port != "0" && !takeover {
		probe, err := net.Listen(loop.Network(address), address)
		if err != nil {
			return err
		}
		if err := probe.Close(); err != nil {
			return err
		}
	}
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(failed, err)
	}}
	var err error
	if l.Listener, err = shared.Listen(context.Background(), loop.Network(address), address); err != nil {
		return err
	}
	bound, err := netip.ParseAddrPort(l.Listener.Addr().String())
	l.remote = err != nil || !bound.Addr().IsLoopback()
	return nil
}

// listenUnix makes the socket under another name and moves it to its own, so that
// it is never there with other permissions, and takes the place of an older one
// without a moment in which there is none.
func (l *listener) listenUnix(cfg *config.Admin, takeover bool) error {
	if _, err := os.Lstat(l.path); err == nil && !takeover {
		if err := vacant(l.path); err != nil {
			return err
		}
	}
	mode, err := strconv.ParseUint(cfg.SocketMode, 8, 32)
	if err != nil {
		return fmt.Errorf("socket_mode: %w", err)
	}
	made := l.path + "~"
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Linux gives the file the permissions that the socket has before it is
	// bound; other systems refuse that, and get them a moment later.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), uint32(mode)) })
	}}
	ln, err := private.Listen(context.Background(), "unix", made)
	if err != nil {
		return err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Listener = ln
	err = os.Chmod(made, fs.FileMode(mode)) // the umask may have taken some away
	if err == nil {
		err = os.Rename(made, l.path)
	}
	if err == nil {
		l.file, err = os.Lstat(l.path)
	}
	if err != nil {
		return errors.Join(err, ln.Close(), os.Remove(made))
	}
	return nil
}

// vacant reports that nobody listens on what is there, which is a socket that a
// process has left behind.
func vacant(path string) error {
	stat, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if stat.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket")
	}
	c, err := net.DialTimeout("unix", path, askTimeout)
	if err == nil {
		return errors.Join(syscall.EADDRINUSE, c.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// address is where it listens, as it would be configured.
func (l *listener) address() string {
	if l.path != "" {
		return "unix:" + l.path
	}
	return l.Addr().String()
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("[admin] %s is in use by another program: stop it or choose another address", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("[admin] %s: this machine has no such address", address)
	}
	return fmt.Errorf("[admin] %s: %w", address, err)
}

// forget removes the name of a Unix socket, unless it is another one's by now.
func (l *listener) forget() error {
	if l.file == nil {
		return nil
	}
	now, err := os.Lstat(l.path)
	if err != nil || !os.SameFile(now, l.file) {
		return nil
	}
	return os.Remove(l.path)
}
