package doctor

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestQuota(t *testing.T) {
	for _, row := range []struct {
		name, membership string
		files            map[string]string
		want             float64
		from             string
	}{
		{"none", "0::/\n", map[string]string{"cpu.max": "max 100000\n"}, 0, ""},
		{"version 2", "0::/a/b\n", map[string]string{"a/b/cpu.max": "150000 100000\n"}, 1.5, "a/b/cpu.max"},
		{"of a parent", "0::/a/b\n", map[string]string{"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5, "a/cpu.max"},
		{"seen from inside", "0::/../../x\n", map[string]string{"cpu.max": "200000 100000"}, 2, "cpu.max"},
		{"version 1", "3:cpu,cpuacct:/c\n1:name=systemd:/\n", map[string]string{
			"cpu,cpuacct/c/cpu.cfs_quota_us": "25000", "cpu,cpuacct/c/cpu.cfs_period_us": "100000"},
			0.25, "cpu,cpuacct/c/cpu.cfs_quota_us"},
		{"version 1 without one", "1:cpu:/\n", map[string]string{"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0, ""},
		{"cpuset is another thing", "1:cpuset:/\n", map[string]string{"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"},
			0, ""},
		{"nonsense", "0::/\nx\n", map[string]string{"cpu.max": "a b c"}, 0, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			membership := filepath.Join(root, "membership")
			require.NoError(t, os.WriteFile(membership, []byte(row.membership), 0o644))
			for file, content := range row.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(content), 0o644))
			}
			got, from := quota(membership, root)
			assert.Equal(t, row.want, got)
			if row.from != "" {
				row.from = filepath.Join(root, row.from)
			}
			assert.Equal(t, row.from, from)
		})
	}
}

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-1,4,6-7": 5, "": 0, "x": 0} {
		assert.Equal(t, want, countList(list), list)
	}
}

// Who listens on a port is found, and whether it runs the same configuration.
func TestHolder(t *testing.T) {
	cat, err := exec.LookPath("cat")
	require.NoError(t, err)
	folder := t.TempDir()
	file, other := filepath.Join(folder, "a.toml"), filepath.Join(folder, "b.toml")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.WriteFile(other, nil, 0o644))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	assert.Nil(t, holder(port, file), "it is this process")

	socket, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer socket.Close()
	cmd := exec.Command(cat)
	cmd.Args = []string{os.Args[0], "-", "a.toml"} // the name is what makes it one of ours
	cmd.Dir, cmd.ExtraFiles = folder, []*os.File{socket}
	waits, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	assert.Equal(t, &Holder{PID: cmd.Process.Pid, Name: "cat", Same: true}, holder(port, file))
	assert.False(t, holder(port, other).Same)
	assert.Nil(t, holder(1, file))
	require.NoError(t, waits.Close())
	require.NoError(t, cmd.Wait())
}
