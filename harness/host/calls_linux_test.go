package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// child is a shell that runs what it is told and says when it has.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Writer
	stdout *bufio.Reader
}

func startChild(t *testing.T) child {
	cmd := exec.Command("sh")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, StartOn(cmd, nil))
	t.Cleanup(func() { _, _ = killGroup(cmd.Process.Pid), cmd.Wait() })
	c := child{t: t, cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	c.run(":")
	return c
}

func (c child) pid() int { return c.cmd.Process.Pid }

// run returns when the shell has done a command and waits for the next one.
func (c child) run(command string) {
	fmt.Fprintf(c.stdin, "%s; echo done\n", command)
	line, err := c.stdout.ReadString('\n')
	require.NoError(c.t, err)
	require.Equal(c.t, "done\n", line)
}

// requirePerf skips where counting is not allowed, which root always is in CI.
func requirePerf(t *testing.T) {
	if err := CallsCounted(); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// Processes that begin and end while they are counted are counted, too.
func TestCallMeter(t *testing.T) {
	requirePerf(t)
	c := startChild(t)
	m, err := NewCallMeter(c.pid())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	calls := func(command string) Calls {
		before, err := m.Read()
		require.NoError(t, err)
		c.run(command)
		after, err := m.Read()
		require.NoError(t, err)
		return after.Minus(before)
	}
	const bytes = 20000 // that dd reads and writes one by one
	none, some := calls("dd if=/dev/zero of=/dev/null bs=1 count=0 2>/dev/null"),
		calls(fmt.Sprintf("dd if=/dev/zero of=/dev/null bs=1 count=%d 2>/dev/null", bytes))
	require.NotZero(t, none.All)
	require.InDelta(t, 2*bytes, some.All-none.All, 200, "beside what it does with nothing to copy")
	require.Zero(t, some.Enters, "it knows no io_uring")

	require.NoError(t, killGroup(c.pid()))
	_ = c.cmd.Wait()
	_, err = m.Read()
	require.NoError(t, err, "what has ended has been counted")
	_, err = NewCallMeter(c.pid())
	require.ErrorContains(t, err, "it has ended")
}

// The tracepoint's id is found with a mounted tracefs and without.
func TestTracefs(t *testing.T) {
	requirePerf(t)
	id, err := tracepoint(callsTracepoint)
	require.NoError(t, err)
	require.NotZero(t, id)
	if os.Geteuid() != 0 {
		return // who only reads what is mounted
	}
	text, err := readTracefs(callsTracepoint)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(id), strings.TrimSpace(string(text)))
	_, err = readTracefs("events/no/such")
	require.ErrorIs(t, err, os.ErrNotExist)
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	if _, err := os.Stat(tracefsPath + "/events"); err != nil {
		require.NotContains(t, string(mounts), "tracefs", "what was not mounted stays so")
	}
}

func TestExplainPerf(t *testing.T) {
	require.ErrorContains(t, explainPerf(unix.EACCES), "run it as root")
	require.ErrorContains(t, explainPerf(unix.EPERM), "seccomp")
	require.ErrorContains(t, explainPerf(unix.ENOSYS), "CONFIG_PERF_EVENTS")
	require.ErrorContains(t, explainPerf(unix.EMFILE), "ulimit")
	require.ErrorIs(t, explainPerf(unix.EINVAL), unix.EINVAL)
}

// The two clocks of TestCPUAgreesWithPerf are compared over so much work, often
// enough that one time nobody takes a core from this machine: of such time perf's
// clock knows nothing, and goes on.
const (
	agreeing   = 0.02
	agreeWork  = 400 * time.Millisecond
	agreeTries = 8
)

// The CPU time that the lab divides by requests is what perf stat shows as
// task-clock, which is this event: within 2 %, for a process and its children.
func TestCPUAgreesWithPerf(t *testing.T) {
	requirePerf(t)
	c := startChild(t)
	c.run("(while :; do :; done) & (while :; do :; done) & :")
	c.stop()
	meter, err := NewMeter(c.pid())
	require.NoError(t, err)
	require.Len(t, meter.pids, 3)
	clock, err := openCounters(c.pid(), unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK}, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, clock.close()) })
	var said []string
	for range agreeTries {
		cpu, perf := c.work(meter, clock)
		off := (perf - cpu).Seconds() / cpu.Seconds()
		if off > -agreeing && off < agreeing {
			return
		}
		said = append(said, fmt.Sprintf("%v by the process clock, %v by perf", cpu, perf))
	}
	t.Fatalf("the clocks never agree within %.0f %%: %s", 100*agreeing, strings.Join(said, "; "))
}

// work lets the child work for a while, and returns what both clocks say of it. The
// child stands still when they are read, so that none of them is behind.
func (c child) work(meter Meter, clock counters) (cpu, perf time.Duration) {
	read := func() (time.Duration, time.Duration) {
		cpu, err := meter.CPU()
		require.NoError(c.t, err)
		perf, err := clock.read()
		require.NoError(c.t, err)
		return cpu, time.Duration(perf)
	}
	cpuBefore, perfBefore := read()
	require.NoError(c.t, unix.Kill(-c.pid(), unix.SIGCONT))
	require.Eventually(c.t, func() bool {
		now, err := meter.CPU()
		return err == nil && now-cpuBefore >= agreeWork
	}, 2*time.Minute, 10*time.Millisecond)
	c.stop()
	cpu, perf = read()
	return cpu - cpuBefore, perf - perfBefore
}

// stop stops the child with its own children and waits until they stand still.
func (c child) stop() {
	require.NoError(c.t, unix.Kill(-c.pid(), unix.SIGSTOP))
	family, err := familyOf(c.pid())
	require.NoError(c.t, err)
	require.Eventually(c.t, func() bool {
		for _, pid := range family {
			if !strings.HasPrefix(field(fmt.Sprintf("/proc/%d/status", pid), "State"), "T") {
				return false
			}
		}
		return true
	}, time.Minute, time.Millisecond)
}
