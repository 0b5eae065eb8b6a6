// Package handover lets a process take the place of another one that listens,
// without a moment in which nobody does.
//
// It refuses to know what is served: it carries listening sockets by name, and
// notes. Which of them are used, and what "loaded" means, is for the processes.
//
// The process that goes is a Giver, the one that comes an Heir. They talk over a
// Unix socket, each sure that the other belongs to the same user:
//
//	heir    hello     which version of this it speaks
//	giver   legacy    notes, and how many sockets follow
//	giver   sockets   their names; the descriptors come along, a batch at a time
//	heir    loaded    everything has been read, opened and started but for clients
//	giver   go        nobody has told it to end meanwhile
//	heir    serving   and what it serves; the giver accepts no more of that, but
//	                  could again
//	giver   yours     the heir has lived for a while: the giver ends
//
// Instead of any of these each may say "no" and why. Whatever goes wrong before the
// last line, the giver goes on as if nothing had happened, and says why.
//
// Everything of a peer is bounded, in size and in time. All of it may run on any
// goroutine but a worker's.
package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	version = 1

	messageMax = 256 << 10
	socketsMax = 8192
	// batchMax descriptors go with one message; Linux takes 253 (SCM_MAX_FD).
	batchMax = 64

	// answerTime is for what needs no work on the other side.
	answerTime = 5 * time.Second
)

// Socket is a listening socket and the name that both sides know it by.
type Socket struct {
	Name string
	File *os.File
}

// Legacy is what one process leaves to the next.
type Legacy struct {
	Sockets []Socket
	// Notes are for the heir's program, which may be newer or older than the
	// giver's: it takes what it knows.
	Notes map[string]json.RawMessage
}

// Take returns the sockets of a name, which are the caller's then.
func (l *Legacy) Take(name string) (files []*os.File) {
	var rest []Socket
	for _, s := range l.Sockets {
		if s.Name == name {
			files = append(files, s.File)
		} else {
			rest = append(rest, s)
		}
	}
	l.Sockets = rest
	return files
}

// Close closes the files that nobody has taken.
func (l *Legacy) Close() {
	for _, s := range l.Sockets {
		_ = s.File.Close() // they are duplicates: nothing is lost with them
	}
	l.Sockets = nil
}

// Refusal is a peer's "no".
type Refusal struct{ Why string }

func (r *Refusal) Error() string { return "it said no: " + r.Why }

// What is said.
const (
	sayHello   = "hello"
	sayLegacy  = "legacy"
	saySockets = "sockets"
	sayLoaded  = "loaded"
	sayGo      = "go"
	sayServing = "serving"
	sayYours   = "yours"
	sayNo      = "no"
)

// message is one line of the talk. It is JSON so that a program of another version
// reads what it knows.
type message struct {
	Say     string                     `json:"say"`
	Version int                        `json:"version,omitempty"`
	Why     string                     `json:"why,omitempty"`
	Names   []string                   `json:"names,omitempty"`   // of sockets
	Sockets int                        `json:"sockets,omitempty"` // that follow
	Notes   map[string]json.RawMessage `json:"notes,omitempty"`

	files []*os.File
}

// wire is a connection to the peer. A message is its length in four bytes, the
// four letters that tell this protocol from others, and JSON.
type wire struct{ conn *net.UnixConn }

var magic = [4]byte{'A', 't', 'l', 's'}

const headBytes = 8

func (w *wire) send(m message, within time.Duration) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > messageMax {
		return fmt.Errorf("%s of %d bytes: %d are the most", m.Say, len(body), messageMax)
	}
	var rights []byte
	if len(m.files) > 0 {
		descriptors := make([]int, len(m.files))
		for i, f := range m.files {
			descriptors[i] = int(f.Fd())
		}
		rights = syscall.UnixRights(descriptors...)
	}
	head := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), magic[:]...)
	if err := w.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	// The descriptors go with the first byte, and nothing else is sent with it:
	// the kernel never merges them into another read.
	n, _, err := w.conn.WriteMsgUnix(head, rights, nil)
	if err == nil && n < len(head) {
		_, err = w.conn.Write(head[n:])
	}
	if err == nil {
		_, err = w.conn.Write(body)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", m.Say, err)
	}
	return nil
}

// receive reads one message, and wants it to be what is named. A "no" is an error.
func (w *wire) receive(say string, within time.Duration) (m message, err error) {
	defer func() {
		if err != nil {
			closeAll(m.files)
			m = message{}
		}
	}()
	if err := w.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return m, err
	}
	var head [headBytes]byte
	if m.files, err = w.readHead(&head); err != nil {
		return m, fmt.Errorf("wait for %s: %w", say, err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if [4]byte(head[4:]) != magic {
		return m, fmt.Errorf("wait for %s: the peer does not speak this protocol", say)
	}
	if n > messageMax {
		return m, fmt.Errorf("wait for %s: a message of %d bytes: %d are the most", say, n, messageMax)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(w.conn, body); err != nil {
		return m, fmt.Errorf("wait for %s: %w", say, err)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("wait for %s: %w", say, err)
	}
	switch {
	case m.Say == sayNo:
		return m, &Refusal{m.Why}
	case m.Say != say:
		return m, fmt.Errorf("wait for %s: the peer said %.20q", say, m.Say)
	case len(m.files) > 0 && m.Say != saySockets:
		return m, fmt.Errorf("wait for %s: the peer sent descriptors with it", say)
	}
	return m, nil
}

// readHead reads the head of a message, and the descriptors that come with it. It
// asks for no byte behind it, as those might bring others.
func (w *wire) readHead(head *[headBytes]byte) (files []*os.File, err error) {
	rights := make([]byte, syscall.CmsgSpace(4*batchMax))
	for read := 0; read < len(head); {
		n, oobn, flags, _, err := w.conn.ReadMsgUnix(head[read:], rights)
		more, parseErr := parseRights(rights[:oobn])
		files = append(files, more...)
		switch {
		case err != nil:
			return files, err
		case parseErr != nil:
			return files, parseErr
		case flags&syscall.MSG_CTRUNC != 0:
			return files, errors.New("more descriptors than may come at once, or than this process may have")
		case n == 0:
			return files, io.EOF
		}
		read += n
	}
	return files, nil
}

func parseRights(oob []byte) (files []*os.File, err error) {
	controls, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range controls {
		if controls[i].Header.Type != syscall.SCM_RIGHTS {
			continue
		}
		descriptors, err := syscall.ParseUnixRights(&controls[i])
		if err != nil {
			return files, err
		}
		for _, fd := range descriptors {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nobody has used them
	}
}

// sameUser makes sure that the peer runs as the user that this process runs as,
// and says which process it is.
func sameUser(conn *net.UnixConn) (pid int, err error) {
	uid, pid, err := peerOf(conn)
	if err != nil {
		return 0, fmt.Errorf("who is the peer: %w", err)
	}
	if uid != os.Geteuid() {
		return 0, fmt.Errorf("the peer, process %d, belongs to user %d and not %d", pid, uid, os.Geteuid())
	}
	return pid, nil
}
