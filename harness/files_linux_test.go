package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// below returns a command that starts with a hard limit of open files.
func below(limit string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Args = append([]string{"/bin/sh", "-c", "ulimit -n " + limit + `; exec "$@"`, "sh"}, cmd.Args...)
	cmd.Path = "/bin/sh"
	return cmd
}

// Thousands of connections that rest, for which there have to be files enough: who
// may raise the limit does, for the subject as well.
func TestRunIdle(t *testing.T) {
	skipShort(t)
	l := newLab(t)
	cmd := l.command("-count", "1", "-scenario", "idle-conns")
	if exec.Command("/bin/sh", "-c", "ulimit -n 1000; ulimit -n 20000").Run() == nil {
		cmd = below("1000", cmd)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	l.requireClean()
	f, err := results.Open(strings.TrimPrefix(strings.SplitN(string(stdout), "\n", 2)[0], "results: "))
	require.NoError(t, err)
	require.Greater(t, f.Values(f.Names()[0], results.Resident)[0], 1000.0, "net/http has a goroutine for each")
}

// What would run out of open files is refused before anything is started, if the
// limit cannot be raised.
func TestRunWithoutFiles(t *testing.T) {
	l := newLab(t)
	cmd := below("1000", l.command("-scenario", "idle-conns"))
	if os.Getuid() == 0 { // who in a user namespace may raise no limit of the machine
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
		}
	}
	said, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.NotNil(t, cmd.ProcessState, err)
	require.Equal(t, exitUsage, cmd.ProcessState.ExitCode(), "%s", said)
	require.Contains(t, string(said), "idle-conns c=5000 is left out: it needs 5512 open files, and the hard limit is 1000, which")
	l.requireClean()
}
