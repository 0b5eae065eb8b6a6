package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"atlas/proxy/config"
	"atlas/proxy/handover"
	"atlas/proxy/server"
)

// inheritance is what the process begins with: what the one before it leaves, or
// sockets that systemd opened for it.
func inheritance(cfg *config.Config, log *slog.Logger, heir *handover.Heir) server.Estate {
	if heir != nil {
		return server.Estate{Legacy: &heir.Legacy, Loaded: heir.Loaded}
	}
	legacy := new(handover.Legacy)
	for _, file := range activation.Files(true) {
		if name, ours := activated(cfg, file); ours {
			legacy.Sockets = append(legacy.Sockets, handover.Socket{Name: name, File: file})
		} else {
			log.Warn("systemd opened a socket that the configuration does not ask for", "name", file.Name())
			_ = file.Close() // it stays systemd's
		}
	}
	if len(legacy.Sockets) == 0 {
		return server.Estate{}
	}
	return server.Estate{Legacy: legacy, Lent: true}
}

// listenName is the FileDescriptorName= of a socket that is [listen], whatever its
// address.
const listenName = "listen"

// activated says which listener a socket of systemd is meant to be: by its name, or
// by its address.
func activated(cfg *config.Config, file *os.File) (name string, ours bool) {
	name = server.DoorName(cfg)
	if file.Name() == listenName {
		return name, true
	}
	ln, err := net.FileListener(file)
	if err != nil {
		return "", false
	}
	at, err := netip.ParseAddrPort(ln.Addr().String())
	if err = errors.Join(err, ln.Close()); err != nil {
		return "", false
	}
	if int(at.Port()) != cfg.Listen.Port {
		return "", false
	}
	want, err := netip.ParseAddr(cfg.Listen.Address)
	// A port without an address is of both families for systemd.
	return name, err != nil || want == at.Addr() || want.IsUnspecified() && at.Addr().IsUnspecified()
}

// notifyMax is how long systemd may leave what we say in its queue.
const notifyMax = time.Second

// notify tells systemd, if it started us.
func (l *life) notify(state string) {
	if err := sdNotify(state); err != nil {
		l.log.Warn("tell systemd", "state", state, "error", err)
	}
}

// sdNotify is daemon.SdNotify but for the time that it may take: that one waits
// for ever for a systemd that does not read.
func sdNotify(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(notifyMax)) // fails on closed sockets only
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

func (l *life) notifyReady() {
	l.notify(daemon.SdNotifyReady + "\nMAINPID=" + strconv.Itoa(os.Getpid()))
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		l.log.Warn("no watchdog", "error", err)
	}
	if err != nil || interval == 0 {
		return
	}
	go func() {
		for l.talks.Err() == nil {
			ctx, cancel := context.WithTimeout(context.Background(), interval/2)
			if len(l.server.Silent(ctx)) == 0 {
				l.notify(daemon.SdNotifyWatchdog)
			} else {
				l.log.Error("a worker does not answer: systemd is told nothing")
			}
			cancel()
			select {
			case <-time.After(interval / 2):
			case <-l.talks.Done():
			}
		}
	}()
}

func (l *life) notifyReloading() {
	l.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

func (l *life) notifyReloaded() { l.notify(daemon.SdNotifyReady) }

func (l *life) notifyStopping() { l.notify(daemon.SdNotifyStopping) }

// notifyHeir says who is the service now.
func (l *life) notifyHeir(pid string) { l.notify("MAINPID=" + pid) }
