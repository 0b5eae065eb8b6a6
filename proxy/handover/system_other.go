//go:build !linux

package handover

import (
	"errors"
	"net"
	"os"
)

var errNotBuilt = errors.New("handing over to another process is built for Linux only")

func peerOf(*net.UnixConn) (uid, pid int, err error) { return 0, 0, errNotBuilt }

func listenPrivately(string) (*net.UnixListener, error) { return nil, errNotBuilt }

func lockFolder(string) (func(), error) { return nil, errNotBuilt }

func pair() (ours, theirs *os.File, err error) { return nil, nil, errNotBuilt }

// KeepStderr is for what does not exist here.
func (h *Heir) KeepStderr() error { return nil }
