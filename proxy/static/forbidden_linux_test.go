package static

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Numbers of include/uapi/linux: prctl.h and capability.h.
const (
	prCapbsetDrop     = 24
	capDACOverride    = 1
	capDACReadSearch  = 2
	forbiddenStageEnv = "STATIC_TEST_FORBIDDEN"
)

// TestForbidden is about files that this process may not read. Root may read
// all, so as root the test runs once more in a process that has lost the
// capabilities for that: a bounding set counts from the next exec on.
func TestForbidden(t *testing.T) {
	switch stage := os.Getenv(forbiddenStageEnv); {
	case stage == "" && os.Geteuid() == 0:
		cmd := exec.Command(os.Args[0], "-test.run=^TestForbidden$")
		cmd.Env = append(os.Environ(), forbiddenStageEnv+"=drop")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	case stage == "drop":
		runtime.LockOSThread()
		for _, capability := range []uintptr{capDACOverride, capDACReadSearch} {
			_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetDrop, capability, 0)
			require.Zero(t, errno)
		}
		require.NoError(t, os.Setenv(forbiddenStageEnv, "run"))
		require.NoError(t, syscall.Exec(os.Args[0], os.Args, os.Environ()))
	}
	sites(t, func(s *site) {
		s.write("file", []byte("secret"))
		s.write("dir/file", []byte("secret"))
		s.write("later", []byte("public"))
		for _, name := range []string{"file", "dir", "later"} {
			if os.Geteuid() == 0 {
				require.NoError(s, os.Chown(filepath.Join(s.root, name), 65534, 65534))
			}
		}
		require.NoError(s, os.Chmod(filepath.Join(s.root, "file"), 0))
		require.NoError(s, os.Chmod(filepath.Join(s.root, "dir"), 0))
		c := s.dial()
		assert.Equal(s, 200, c.ask("GET /later").StatusCode)
		require.NoError(s, os.Chmod(filepath.Join(s.root, "later"), 0))
		s.Post(func() { s.handler.cache.drop("later") })
		for _, target := range []string{"/file", "/dir/file", "/dir/none", "/dir/", "/later"} {
			got := c.ask("GET " + target)
			assert.Equal(s, 403, got.StatusCode, target)
			assert.Equal(s, "403 Forbidden: the server may not read this file\n", got.Text)
		}
		assert.Equal(s, 403, c.ask("HEAD /file").StatusCode)
		for _, name := range []string{"file", "dir", "later"} { // or they could not be cleaned up
			require.NoError(s, os.Chown(filepath.Join(s.root, name), os.Geteuid(), os.Getegid()))
			require.NoError(s, os.Chmod(filepath.Join(s.root, name), 0o755))
		}
	})
}
