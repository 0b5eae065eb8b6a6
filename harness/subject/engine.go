package subject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// Engine is a Docker daemon, and how others reach what it runs. The zero Engine is
// the one that docker asks by itself, for servers of this machine alone.
type Engine struct {
	// Name is that of a Docker context, for a daemon on another host; "" is none.
	Name string
	// Address is the IP address that its servers listen on, "" for 127.0.0.1.
	Address string
}

// Check says what is wrong with the two flags of a role, "subject" or "origin".
func (e Engine) Check(role string) error {
	if e.Address == "" {
		if e.Name != "" {
			return fmt.Errorf("-%s-context needs -%[1]s-host: "+
				"the IP address at which the other hosts reach that one", role)
		}
		return nil
	}
	address, err := netip.ParseAddr(e.Address)
	if err != nil || address.IsUnspecified() || address.IsMulticast() || address.Zone() != "" {
		return fmt.Errorf("-%s-host %q: want one IP address, which is that of an interface there", role, e.Address)
	}
	return nil
}

// String names the host for people.
func (e Engine) String() string {
	if e.Name == "" {
		return "this host"
	}
	return "the host of Docker context " + e.Name
}

// args are a command of docker, addressed.
func (e Engine) args(args ...string) []string {
	if e.Name == "" {
		return args
	}
	return append([]string{"--context", e.Name}, args...)
}

// endpoint is the engine for docker-compose 1.29, which finds contexts by their
// name only where there is a ~/.docker/config.json.
func (e Engine) endpoint() ([]string, error) {
	if e.Name == "" {
		return nil, nil
	}
	address, err := Engine{}.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}", e.Name)
	return []string{"--host", address}, err
}

// dockerTimeout bounds what a daemon is asked beside a run.
const dockerTimeout = 30 * time.Second

// docker asks the daemon.
func (e Engine) docker(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", e.args(args...)...).Output()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no answer in %v", dockerTimeout)
	}
	return strings.TrimSpace(string(out)), explained(err)
}

// explained adds what a program said on its standard error.
func explained(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
