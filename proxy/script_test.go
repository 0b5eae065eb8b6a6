package main

import (
	"cmp"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// requireInstalled skips where a program that the test uses is missing, and fails
// where CI has to have it.
func requireInstalled(t testing.TB, program string) {
	t.Helper()
	if path, _ := exec.LookPath(program); path != "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI is set, and %s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
}

// TestScript runs testdata/script/*.txtar: the program itself, curl, and files.
// Beside the commands of testscript there are
//
//	expand FILE        replaces ${NAME} in the file by variables of the script
//	origin-start       starts an upstream; sets ORIGIN and ORIGIN_PORT
//	origin-asked       waits until somebody has asked the origin for /slow
//	origin-release     lets the origin answer /slow
//	atlas-start FILE   runs a configuration; sets ADDR and PORT when it listens
//	atlas-signal NAME  sends it TERM or INT, and waits until it has noticed
//	atlas-wait STATUS  waits until it has ended like that; writes atlas.log
//
// The system chooses the ports: configurations ask for port 0. ENGINE is the
// engine under test, SAMPLE the sample of the README.
func TestScript(t *testing.T) {
	requireInstalled(t, "curl")
	sample, err := filepath.Abs("config/testdata/seed.toml")
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("ENGINE", cmp.Or(os.Getenv("ATLAS_TEST_ENGINE"), "auto"))
			env.Setenv("SAMPLE", sample)
			env.Setenv("no_proxy", "*") // curl is to ask nobody else
			env.Vars = append(env.Vars, exitAtOnce)
			env.Values[stageKey{}] = new(stage)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": command(1, func(ts *testscript.TestScript, _ *stage, args []string) {
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
			}),
			"origin-start":   command(0, startScriptOrigin),
			"origin-asked":   command(0, awaitScriptOrigin),
			"origin-release": command(0, func(_ *testscript.TestScript, s *stage, _ []string) { s.origin.release() }),
			"atlas-start":    command(1, startScriptAtlas),
			"atlas-signal":   command(1, signalScriptAtlas),
			"atlas-says":     command(1, hearScriptAtlas),
			"atlas-wait":     command(1, awaitScriptAtlas),
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// stage is what a script has started.
type stage struct {
	origin *slowOrigin
	atlas  *process
}

type stageKey struct{}

// command makes a command of a script that takes a number of arguments.
func command(count int, f func(*testscript.TestScript, *stage, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != count {
			ts.Fatalf("this command cannot be negated and takes %d arguments", count)
		}
		f(ts, ts.Value(stageKey{}).(*stage), args)
	}
}

func startScriptOrigin(ts *testscript.TestScript, s *stage, _ []string) {
	origin, err := newSlowOrigin()
	ts.Check(err)
	ts.Defer(origin.close)
	s.origin = origin
	_, port, _ := net.SplitHostPort(origin.address)
	ts.Setenv("ORIGIN", origin.address)
	ts.Setenv("ORIGIN_PORT", port)
}

func awaitScriptOrigin(ts *testscript.TestScript, s *stage, _ []string) {
	select {
	case <-s.origin.asked:
	case <-time.After(patience):
		ts.Fatalf("nobody has asked the origin for /slow")
	}
}

func startScriptAtlas(ts *testscript.TestScript, s *stage, args []string) {
	p, err := startProcess(args[0], ts.MkAbs("."), nil)
	ts.Check(err)
	ts.Defer(p.kill)
	s.atlas = p
	_, port, _ := net.SplitHostPort(p.address)
	ts.Setenv("ADDR", p.address)
	ts.Setenv("PORT", port)
}

func signalScriptAtlas(ts *testscript.TestScript, s *stage, args []string) {
	signal, known := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP,
	}[args[0]]
	if !known {
		ts.Fatalf("want TERM, INT or HUP")
	}
	ts.Check(s.atlas.cmd.Process.Signal(signal))
	if signal != syscall.SIGHUP {
		const draining = "msg=draining"
		hearScriptAtlas(ts, s, []string{draining, `msg="about to drain"`})
		// It says so before it does.
		for strings.Contains(s.atlas.log.String(), draining) {
			c, err := net.Dial("tcp", s.atlas.address)
			if err != nil {
				break
			}
			_ = c.Close()
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// hearScriptAtlas waits until the log has one of some texts.
func hearScriptAtlas(ts *testscript.TestScript, s *stage, texts []string) {
	said := func(text string) bool { return strings.Contains(s.atlas.log.String(), text) }
	for end := time.Now().Add(patience); !slices.ContainsFunc(texts, said); {
		if time.Now().After(end) {
			ts.Fatalf("it does not say %q:\n%s", texts, s.atlas.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func awaitScriptAtlas(ts *testscript.TestScript, s *stage, args []string) {
	status, err := s.atlas.end()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("atlas.log"), []byte(s.atlas.log.String()), 0o644))
	if want, err := strconv.Atoi(args[0]); err != nil || status != want {
		ts.Fatalf("exit status %d:\n%s", status, s.atlas.log)
	}
}
