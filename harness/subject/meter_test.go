package subject

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
)

// The clocks of a process, asked for through another one.
func TestFarMeter(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	watched := exec.Command("sleep", "1000")
	require.NoError(t, watched.Start())
	defer func() {
		_ = watched.Process.Kill()
		_ = watched.Wait()
	}()
	near, err := host.NewMeter(watched.Process.Pid)
	require.NoError(t, err)
	far, err := newFarMeter(exec.Command(self, "serve-meter", strconv.Itoa(watched.Process.Pid)))
	require.NoError(t, err)
	defer far.close()
	require.Eventually(t, func() bool { // it sleeps soon, whose time then stands still
		here, err := near.CPU()
		require.NoError(t, err)
		there, err := far.CPU()
		require.NoError(t, err)
		return here == there
	}, 20*time.Second, 10*time.Millisecond)
	resident, err := far.Resident()
	require.NoError(t, err)
	require.Positive(t, resident)

	require.NoError(t, watched.Process.Kill())
	_ = watched.Wait() // killed
	_, err = far.CPU()
	require.ErrorContains(t, err, "the clocks of a server on another host: CPU clock of process")
}

func TestFarMeterRefuses(t *testing.T) {
	_, err := newFarMeter(exec.Command("sh", "-c", "echo no such container >&2; exit 1"))
	require.ErrorContains(t, err, "no such container")
}

func TestEngineCheck(t *testing.T) {
	for _, row := range []struct {
		engine Engine
		want   string
	}{
		{Engine{}, ""},
		{Engine{Address: "198.18.77.1"}, ""},
		{Engine{"far", "198.18.77.2"}, ""},
		{Engine{"far", ""}, "-subject-context needs -subject-host: the IP address"},
		{Engine{"far", "far.example"}, `-subject-host "far.example": want one IP address`},
		{Engine{"", "0.0.0.0"}, `-subject-host "0.0.0.0": want one IP address`},
	} {
		err := row.engine.Check("subject")
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, row.want)
	}
}

// Servers listen where they are told to, and no port is looked for at an address
// that this host has not.
func TestConfigsListen(t *testing.T) {
	for _, s := range append(All(), Origins(false)...) {
		if s.template == "" {
			continue
		}
		s.module = nil // which files there are is not under test
		p, err := s.place(t.TempDir(), "", Site{Kind: s.kinds[0], Root: "/srv", Origin: "198.18.77.1:81", Listen: "198.18.77.2"})
		require.NoError(t, err)
		require.NoError(t, s.writeConfig(p))
		text, err := os.ReadFile(p.Config)
		require.NoError(t, err)
		require.Contains(t, string(text), "198.18.77.2")
		require.NotContains(t, string(text), "127.0.0.1")
	}
}
