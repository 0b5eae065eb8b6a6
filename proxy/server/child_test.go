package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/looptest"
)

// Environment of a child process: its part in the test, and its configuration.
const (
	roleEnv   = "SERVER_TEST_ROLE"
	configEnv = "SERVER_TEST_CONFIG"
)

// playRole is main in a child process: a server that says how many goroutines it
// has when it is asked, and ends when its standard input does.
func playRole(role string) int {
	err := fmt.Errorf("no such role: %s", role)
	if role == "serve" {
		err = serveRole(os.Getenv(configEnv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start error:", err)
		return 1
	}
	return 0
}

func serveRole(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	cfg, _, err := config.Parse(file, text)
	if err != nil {
		return err
	}
	cfg.AccessLog.Format = "off" // the standard output has the answers
	s, err := Start(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		fmt.Println(runtime.NumGoroutine())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !s.Shutdown(ctx) {
		return errors.New("it did not end by itself")
	}
	return nil
}

// child is a server in a process of its own.
type child struct {
	t       testing.TB
	cmd     *exec.Cmd
	log     *logBook
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	address string
	exited  chan error
}

// prepare makes the command of a child that has not started.
func prepare(t testing.TB, text string) *child {
	t.Helper()
	file := filepath.Join(t.TempDir(), "atlas.toml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	c := &child{t: t, cmd: exec.Command(os.Args[0]), log: new(logBook), exited: make(chan error, 1)}
	// The race detector sleeps for a second at the end of a process, otherwise.
	c.cmd.Env = append(os.Environ(), roleEnv+"=serve", configEnv+"="+file, "GORACE=atexit_sleep_ms=0")
	c.cmd.Stderr = c.log
	stdin, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdin, c.stdout = stdin, bufio.NewReader(stdout)
	return c
}

// started watches a child that has just been started, and ends it with the test.
func (c *child) started() *child {
	c.t.Helper()
	go func() { c.exited <- c.cmd.Wait() }()
	c.t.Cleanup(func() {
		_ = c.stdin.Close() // some tests have ended it already
		select {
		case err := <-c.exited:
			c.exited <- err
			if !c.t.Failed() {
				assert.NoError(c.t, err, "%s", strings.Join(c.log.lines(""), "\n"))
			}
		case <-time.After(2 * patience):
			_ = c.cmd.Process.Kill()
			c.t.Errorf("the child did not end: %s", strings.Join(c.log.lines(""), "\n"))
		}
	})
	return c
}

var addressField = regexp.MustCompile(` address=(\S+) `)

// listening waits until it serves.
func (c *child) listening() *child {
	c.t.Helper()
	eventually(c.t, "the child to listen", func() bool {
		if len(c.exited) > 0 {
			c.t.Fatalf("it ended: %s", strings.Join(c.log.lines(""), "\n"))
		}
		lines := c.log.lines("msg=listening")
		if len(lines) == 0 {
			return false
		}
		c.address = addressField.FindStringSubmatch(lines[0])[1]
		return true
	})
	return c
}

// spawn starts a server in a process of its own.
func spawn(t testing.TB, text string) *child {
	t.Helper()
	c := prepare(t, text)
	require.NoError(t, looptest.Start(c.cmd))
	return c.started().listening()
}

// goroutines asks the child how many it has.
func (c *child) goroutines() int {
	c.t.Helper()
	_, err := io.WriteString(c.stdin, "?\n")
	require.NoError(c.t, err)
	line, err := c.stdout.ReadString('\n')
	require.NoError(c.t, err)
	n, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(c.t, err)
	return n
}
