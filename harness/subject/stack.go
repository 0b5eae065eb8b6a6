package subject

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atlas/harness/origin"
	"atlas/scenarios"
)

// The services of ComposeFile and their ports, which stand there as well.
var stack = []struct {
	service string
	subject func() Subject
	kind    scenarios.Kind
	port    int
}{
	{"origin", func() Subject { return origins()[0] }, scenarios.Static, 18080},
	{"nginx", func() Subject { return nginx("nginx-best", "") }, scenarios.Proxy, 18081},
	{"haproxy", func() Subject { return haproxy("haproxy", "") }, scenarios.Proxy, 18082},
	{"atlas", func() Subject { return atlas("atlas", "auto") }, scenarios.Proxy, 18083},
}

// stackDocuments are what the origin of the stack serves: bytes by path.
var stackDocuments = map[string]int{"/1k.html": 1 << 10, "/10k.html": 10 << 10, "/100k.html": 100 << 10}

const (
	stackPath  = "/1k.html"
	healthWait = 90 * time.Second
	healthLook = 300 * time.Millisecond
)

// Up starts every service of ComposeFile, with configurations in dir, which it
// makes, and returns their URLs by service, in order, when all of them are healthy.
// Where one is not, none is left.
func (c *Compose) Up(ctx context.Context, dir string) (urls [][2]string, err error) {
	defer func() {
		if err != nil {
			_ = c.Down(dir)
		}
	}()
	if err := c.render(dir); err != nil {
		return nil, err
	}
	if out, err := c.compose(dir, nil, "up", "--detach", "--force-recreate").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compose up: %w\n%s", err, out)
	}
	for _, one := range stack {
		if err := c.awaitHealthy(ctx, dir, one.service); err != nil {
			return nil, err
		}
		urls = append(urls, [2]string{one.service, fmt.Sprintf("http://127.0.0.1:%d%s", one.port, stackPath)})
	}
	return urls, nil
}

// Down ends and removes what Up has started.
func (c *Compose) Down(dir string) error {
	if out, err := c.compose(dir, nil, "down", "--timeout", "10").CombinedOutput(); err != nil {
		return fmt.Errorf("compose down: %w\n%s", err, out)
	}
	return os.RemoveAll(dir)
}

// render writes the documents and the configurations.
func (c *Compose) render(dir string) error {
	root := filepath.Join(dir, "documents")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := origin.WriteTree(root, stackDocuments); err != nil {
		return err
	}
	for _, one := range stack {
		s := one.subject()
		if _, err := c.program(s); err != nil { // its image is here
			return err
		}
		p, err := s.placeIn(filepath.Join(dir, one.service), one.port, Site{
			Kind: one.kind, Root: root, Path: stackPath, Length: stackDocuments[stackPath],
			Origin: fmt.Sprintf("127.0.0.1:%d", stack[0].port),
		})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(p.Dir, 0o755); err != nil {
			return err
		}
		if err := s.writeConfig(p); err != nil {
			return err
		}
	}
	return nil
}

// awaitHealthy waits for a service's health check.
func (c *Compose) awaitHealthy(ctx context.Context, dir, service string) error {
	for end := time.Now().Add(healthWait); ; {
		id, err := c.compose(dir, nil, "ps", "-q", service).Output()
		if err != nil {
			return fmt.Errorf("compose ps %s: %w", service, explained(err))
		}
		health, err := c.engine.docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}",
			strings.TrimSpace(string(id)))
		if err == nil && health == "running healthy" {
			return nil
		}
		if err == nil && strings.HasPrefix(health, "running") && time.Now().Before(end) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(healthLook):
			}
			continue
		}
		logs, _ := c.compose(dir, nil, "logs", "--tail", "20", service).CombinedOutput()
		return fmt.Errorf("%s is %s, not healthy (%v)\n%s", service, health, err, logs)
	}
}
