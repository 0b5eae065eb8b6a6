package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/config"
	"atlas/proxy/loop"
)

// A Finding is what is wrong with something outside of the configuration that one
// of its keys names.
type Finding struct {
	Key     string // "upstreams[1].ca"
	Message string
	Hint    string
	Warning bool // it will start all the same
}

// Examine opens what a configuration names, as Start would, and tells all that is
// wrong with it. It listens on nothing, connects to nobody and leaves nothing behind.
func Examine(cfg *config.Config) []Finding {
	found := append(ExamineAddress("listen.address", cfg.Listen.Address), examineAccessLog(&cfg.AccessLog)...)
	found = append(found, examineLimits(cfg, DescriptorsMax())...)
	if cfg.Listen.TLS != nil {
		found = append(found, examineTLS(cfg.Listen.TLS)...)
	}
	if cfg.Listen.Mode == config.Static {
		return append(found, examineRoot(cfg.StaticFiles.Root)...)
	}
	for i := range cfg.Upstreams {
		found = append(found, examineUpstream(&cfg.Upstreams[i], fmt.Sprintf("upstreams[%d]", i))...)
	}
	return found
}

// ExamineAddress asks whether this machine has an address; a name is not looked up.
// A port of UDP that nobody uses tells it, and no client sees it.
func ExamineAddress(key, address string) []Finding {
	at, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return []Finding{{Key: key, Message: fmt.Sprintf("this machine has no address %s", address),
			Hint: "0.0.0.0 is all of its IPv4 addresses"}}
	}
	if err == nil {
		_ = c.Close()
	}
	return nil // something else is for the start to find out
}

func examineAccessLog(c *config.AccessLog) []Finding {
	settings, err := accessSettings(c)
	if err == nil {
		err = accesslog.Try(settings)
	}
	if err == nil {
		return nil
	}
	f := finding("access_log.path", "", "", err)
	if errors.Is(err, fs.ErrPermission) {
		f.Hint = fmt.Sprintf("let the user of the server write there; now that is user %d", os.Getuid())
	}
	return []Finding{f}
}

func examineRoot(root string) []Finding {
	dir, err := loop.OpenDir(root)
	if err != nil {
		return []Finding{{Key: "static_files.root", Message: err.Error(), Hint: hintFor(err)}}
	}
	_ = dir.Close()
	return nil
}

// hintFor says what to do about a file that cannot be opened.
func hintFor(err error) string {
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist) && errors.As(err, &path) && filepath.IsAbs(path.Path):
		return "make it, or correct the path"
	case errors.Is(err, fs.ErrNotExist):
		return "a relative path starts where atlas is started"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("let the user of the server read it; now that is user %d", os.Getuid())
	}
	return ""
}

// examineTLS reads all that [listen.tls] names.
func examineTLS(cfg *config.TLS) (found []Finding) {
	s := newSecure(cfg, nil, new(handshakes), slog.New(slog.DiscardHandler))
	now := time.Now()
	whole := true
	for i, p := range s.pairs {
		table := "listen.tls"
		if i > 0 {
			table = fmt.Sprintf("listen.tls.certificates[%d]", i-1)
		}
		if _, err := p.refresh(); err != nil {
			whole = false
			first := finding(table+".cert", table+".key", p.files[1], err)
			if slices.ContainsFunc(aboutKey, func(text string) bool { return strings.Contains(err.Error(), text) }) {
				first.Key, first.Hint = table+".key", "that file is to have the private key in PEM"
			}
			found = append(found, first)
			if _, err := os.Stat(p.files[1]); err != nil && first.Key == table+".cert" {
				found = append(found, Finding{Key: table + ".key", Message: err.Error(), Hint: hintFor(err)})
			}
			continue
		}
		found = append(found, p.examineDates(table, now)...)
	}
	if _, err := s.refreshClients(); err != nil {
		found = append(found, finding("listen.tls.client_ca", "", "", err))
	}
	if _, err := s.refreshStaple(now, true); err != nil && whole {
		found = append(found, finding("listen.tls.ocsp_staple", "", "", err))
	}
	return found
}

// aboutKey is what crypto/tls says of a pair where the file of the key is wrong.
var aboutKey = []string{"in key input", "in the PEM for the private key", "failed to parse private key"}

// finding puts an error to the key that it is about: the second one where a file
// that only that names could not be read.
func finding(key, second, file string, err error) Finding {
	var path *fs.PathError
	if second != "" && errors.As(err, &path) && path.Path == file {
		key = second
	}
	message := err.Error()
	name := key[strings.LastIndexByte(key, '.')+1:]
	// The rest is told by its place.
	for _, known := range []string{"[listen.tls] ", "[[listen.tls.certificates]] ", "[access_log] ", name + ": "} {
		message = strings.TrimPrefix(message, known)
	}
	return Finding{Key: key, Message: message, Hint: hintFor(err)}
}

// examineDates warns of a certificate that nobody will accept, or soon not.
func (p *pair) examineDates(table string, now time.Time) []Finding {
	leaf := p.good.Leaf
	f := Finding{Key: table + ".cert", Warning: true, Hint: "get a new one"}
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		f.Message = "the certificate ended on " + leaf.NotAfter.UTC().Format(utcTime)
	case left < expiryWarning:
		f.Message = fmt.Sprintf("the certificate ends on %s, in %d days",
			leaf.NotAfter.UTC().Format(utcTime), int(left.Hours()/24))
	case now.Before(leaf.NotBefore):
		f.Message = "the certificate is good only from " + leaf.NotBefore.UTC().Format(utcTime)
		f.Hint = "is the clock of this machine right?"
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		f.Message = "the certificate is for no name: no client will accept it"
		f.Hint = "make one with a subject alternative name"
	default:
		return nil
	}
	return []Finding{f}
}

func examineUpstream(c *config.Upstream, instance string) (found []Finding) {
	if c.TLS && c.CA != "" {
		if _, _, err := authorities(c.CA); err != nil {
			found = append(found, Finding{Key: instance + ".ca", Message: err.Error(), Hint: hintFor(err)})
		}
	}
	path := config.UnixPath(c.Address)
	if path == "" {
		return found
	}
	if stat, err := os.Stat(path); err != nil || stat.Mode()&fs.ModeSocket == 0 {
		found = append(found, Finding{Key: instance + ".address", Warning: true,
			Message: path + " is no socket now", Hint: "is the upstream running?"})
	}
	return found
}

// ExamineNames looks up every host name of a configuration.
func ExamineNames(ctx context.Context, cfg *config.Config) (found []Finding) {
	names := map[string]string{"listen.address": cfg.Listen.Address}
	order := []string{"listen.address"}
	if cfg.Listen.Mode != config.Static {
		for i := range cfg.Upstreams {
			key := fmt.Sprintf("upstreams[%d].address", i)
			names[key] = cfg.Upstreams[i].Address
			order = append(order, key)
		}
	}
	for _, key := range order {
		name := names[key]
		if _, err := netip.ParseAddr(name); err == nil || config.UnixPath(name) != "" {
			continue
		}
		if _, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name); err != nil {
			found = append(found, Finding{Key: key, Message: err.Error(), Hint: "is the name right, and known here?"})
		}
	}
	return found
}
