package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/doctor"
)

// underFilter runs a program under a seccomp filter that answers io_uring_setup (425)
// with an errno, as container engines do.
const underFilter = `
import ctypes, os, struct, sys
errno = int(sys.argv[1])
program = b"".join(struct.pack("HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7fff0000)])
code = ctypes.create_string_buffer(program)
class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Fprog(4, ctypes.addressof(code))), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
`

// Under a filter as Docker's and one as Podman's the doctor says which it is like, and
// that Atlas runs; where the configuration insists on io_uring, that it does not.
func TestDoctorUnderSeccomp(t *testing.T) {
	requireInstalled(t, "python3")
	folder := t.TempDir()
	program, err := os.Executable()
	require.NoError(t, err)
	atlas := filepath.Join(folder, "atlas") // TestMain goes by the name
	require.NoError(t, os.Symlink(program, atlas))
	insists := filepath.Join(folder, "insists.toml")
	require.NoError(t, os.WriteFile(insists, []byte("[listen]\nengine = \"io_uring\"\nport = 0\nmode = \"static\"\nroot = \".\"\n"), 0o644))
	for _, row := range []struct {
		name, errno, file string
		status            int
		fix               string
	}{
		{"Docker", "1", "", 0, "docker run --security-opt"},
		{"Podman", "38", "", 0, "podman run --security-opt"},
		{"insists", "1", insists, 1, "docker run --security-opt"},
	} {
		t.Run(row.name, func(t *testing.T) {
			args := []string{"-c", underFilter, row.errno, atlas, "doctor", "--json"}
			if row.file != "" {
				args = append(args, row.file)
			}
			cmd := exec.Command("python3", args...)
			cmd.Stderr = os.Stderr
			cmd.Env = append(os.Environ(), exitAtOnce)
			out, err := cmd.Output()
			if row.status == 0 {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
				assert.Equal(t, row.status, cmd.ProcessState.ExitCode())
			}
			var report doctor.Report
			require.NoError(t, json.Unmarshal(out, &report), "%s", out)
			assert.Equal(t, row.status == 0, report.OK)
			marks := map[string]doctor.Finding{}
			for _, f := range report.Findings {
				marks[f.Name] = f
			}
			assert.Equal(t, doctor.Warn, marks["seccomp"].Mark)
			assert.Contains(t, marks["seccomp"].Fix, row.fix)
			assert.NotEqual(t, doctor.OK, marks["io_uring"].Mark)
			assert.Contains(t, marks["io_uring"].State, "io_uring_setup")
		})
	}
}
