package subject

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"atlas/harness/host"
)

// AtURL returns a server that runs already, by "name=http://host:port", and with
// ",pid=N" where its process is one of this machine. Which work it does cannot be
// seen: a scenario that is named is taken for what it does.
func AtURL(text string) (Subject, error) {
	fail := func(format string, args ...any) (Subject, error) {
		const form = "want name=http://host:port or name=http://host:port,pid=N"
		return Subject{}, fmt.Errorf("-url %s: %w; %s", text, fmt.Errorf(format, args...), form)
	}
	name, rest, _ := strings.Cut(text, "=")
	if err := checkName(name); err != nil {
		return fail("%w", err)
	}
	address, process, named := strings.Cut(rest, ",pid=")
	at, err := url.Parse(address)
	switch {
	case err != nil:
		return fail("%w", err)
	case at.Scheme == "https":
		return fail("over TLS everybody serves the certificate of the run, " +
			"for which a server has to be started by it: write a subject file")
	case at.Scheme != "http" || at.Hostname() == "":
		return fail("%q is no URL of a server", address)
	case strings.Trim(at.Path, "/") != "" || at.RawQuery != "" || at.User != nil:
		return fail("%q has more than a host and a port; the scenarios have the paths", address)
	}
	f := &foreign{url: address, address: net.JoinHostPort(at.Hostname(), cmp.Or(at.Port(), "80"))}
	if named {
		if f.pid, err = strconv.Atoi(process); err != nil || f.pid < 1 {
			return fail("%q is no process", process)
		}
	}
	return Subject{
		Name: name, About: "a server that runs already", kinds: everything, plain: true, foreign: f,
	}, nil
}

// ByURL says whether the server runs already, so that it is neither started nor
// stopped nor put on a core.
func (s Subject) ByURL() bool { return s.foreign != nil && s.foreign.url != "" }

// Metered says whether its process is known, and so its CPU time.
func (s Subject) Metered() bool { return !s.ByURL() || s.foreign.pid != 0 }

// remedy says what to do about a server that runs already and does not answer rightly.
func (s Subject) remedy(err error) string {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("start it first, or correct -url %s=%s", s.Name, s.foreign.url)
	}
	return "it has to serve what `harness documents` writes"
}

// meet returns a server that runs already, if it answers rightly.
func (s Subject) meet(ctx context.Context, site Site) (*Running, error) {
	r := &Running{Address: s.foreign.address, Meter: host.Meter{}, name: s.Name, already: s.foreign.pid}
	if err := r.ask(ctx, site); err != nil {
		return nil, fmt.Errorf("%w; %s", err, s.remedy(err))
	}
	if s.foreign.pid == 0 {
		return r, nil
	}
	var err error
	if r.Meter, err = r.meter(); err == nil {
		_, err = r.Meter.CPU()
	}
	if err != nil && !errors.Is(err, host.ErrUnsupported) {
		return nil, fmt.Errorf("%s: pid=%d: %w", s.Name, s.foreign.pid, err)
	}
	return r, nil
}
