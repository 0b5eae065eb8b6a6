package host

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestStartOnBearsTheChildThere(t *testing.T) {
	allowed := Allowed()
	require.NotEmpty(t, allowed)
	last := allowed[len(allowed)-1]
	cmd := exec.Command("sh", "-c", "grep Cpus_allowed_list /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$")
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, StartOn(cmd, []int{last}))
	require.NoError(t, cmd.Wait())
	fields := strings.Fields(out.String())
	require.Equal(t, List([]int{last}), fields[1], "affinity")
	require.Equal(t, fields[3], fields[2], "the child leads its own process group")
	require.Equal(t, allowed, Allowed(), "the parent keeps its cores")
}

func TestMeterCountsDescendants(t *testing.T) {
	// The shell itself sleeps; its child burns.
	cmd := exec.Command("sh", "-c", "(while :; do :; done) & echo ready; wait")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, StartOn(cmd, nil))
	group := cmd.Process.Pid
	t.Cleanup(func() { _ = killGroup(group) }) // also when the test fails: it would burn a core for ever
	_, err = out.Read(make([]byte, 5))
	require.NoError(t, err)

	meter, err := NewMeter(group)
	require.NoError(t, err)
	require.Len(t, meter.pids, 2)
	before, err := meter.CPU()
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		after, err := meter.CPU()
		return err == nil && after-before > 20*time.Millisecond
	}, 30*time.Second, 10*time.Millisecond)

	require.NoError(t, killGroup(group))
	_ = cmd.Wait() // ended by our signal
	_, err = meter.CPU()
	require.Error(t, err, "a process that is gone has no clock")
}

// What a process does in the kernel is a part of all that it does.
func TestMeterKernel(t *testing.T) {
	cmd := exec.Command("dd", "if=/dev/zero", "of=/dev/null", "bs=1M")
	require.NoError(t, StartOn(cmd, nil))
	group := cmd.Process.Pid
	t.Cleanup(func() { _, _ = killGroup(group), cmd.Wait() })
	meter, err := NewMeter(group)
	require.NoError(t, err)
	var kernel, all time.Duration
	require.Eventually(t, func() bool {
		if kernel, err = meter.Kernel(); err == nil {
			all, err = meter.CPU()
		}
		return err == nil && kernel >= 100*time.Millisecond
	}, 20*time.Second, 10*time.Millisecond)
	require.LessOrEqual(t, kernel, all+2*time.Second/ticksPerSecond)
}

func killGroup(pid int) error {
	return syscall.Kill(-pid, syscall.SIGKILL)
}

func TestPinSelfAndSelfCPU(t *testing.T) {
	allowed := Allowed()
	require.NoError(t, PinSelf(allowed))
	require.Equal(t, allowed, Allowed())
	before := SelfCPU()
	for SelfCPU() == before {
		runtime.Gosched()
	}
	require.Greater(t, SelfCPU(), before)
}

// In a process of its own, because there is no way back.
func TestGiveWay(t *testing.T) {
	if os.Getenv("GIVE_WAY") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestGiveWay$")
		cmd.Env = append(os.Environ(), "GIVE_WAY=1")
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", said)
		return
	}
	require.NoError(t, GiveWay())
	done := make(chan struct{})
	go func() { // on a thread that may be new
		runtime.LockOSThread()
		close(done)
		select {}
	}()
	<-done
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		require.NoError(t, err)
		attr, err := unix.SchedGetAttr(tid, 0)
		require.NoError(t, err)
		require.EqualValues(t, unix.SCHED_IDLE, attr.Policy)
	}
}

func TestSleepUntil(t *testing.T) {
	due := time.Now().Add(2 * time.Millisecond)
	SleepUntil(due)
	require.False(t, time.Now().Before(due))
	SleepUntil(due) // past: returns at once
}

// A process raises its limit of open files as far as it may, and its children have it.
func TestRaiseFiles(t *testing.T) {
	_, before := Limits()
	require.NoError(t, RaiseFiles(0))
	_, after := Limits()
	require.Equal(t, before, after, "nobody wanted more")
	soft := func() string {
		text, err := exec.Command("sh", "-c", "ulimit -Sn").Output()
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	require.Equal(t, strconv.FormatUint(before, 10), soft())

	most, err := strconv.ParseUint(readLine("/proc/sys/fs/nr_open"), 10, 64)
	require.NoError(t, err)
	require.NoError(t, RaiseFiles(most+1))
	_, after = Limits()
	require.Equal(t, before, after, "nobody may have more than that")
	require.NoError(t, RaiseFiles(before+1))
	_, after = Limits()
	require.Contains(t, []uint64{before, before + 1}, after, "by who asks")
	require.Equal(t, strconv.FormatUint(after, 10), soft())
}

func TestPorts(t *testing.T) {
	require.Greater(t, Ports(), 1000)
	require.LessOrEqual(t, Ports(), 1<<16)
}

func TestBusyTicks(t *testing.T) {
	before := busyTicks()
	require.Positive(t, before)
	require.Eventually(t, func() bool { // this loop works, too
		return busyTicks() > before
	}, 30*time.Second, time.Microsecond)
}
