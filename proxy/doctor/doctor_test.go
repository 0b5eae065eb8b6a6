package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/uring"
)

// healthy is a machine where all is well.
func healthy() *Readings {
	return &Readings{
		System: "linux", Kernel: "6.12.1", RingMay: true, Pin: true,
		Ring:         []uring.Unavailable{{Feature: "io_uring_setup", Since: "5.1"}, {Feature: "IORING_OP_RECV", Since: "5.6"}},
		RingDisabled: "0", RingGroup: "-1", Groups: []int{1000},
		Calls:    []Call{{Name: "splice"}},
		OpenSoft: 1024, OpenHard: 65536, LockedSoft: 8 << 20,
		CPUs: 4, Online: 4, Somaxconn: 4096, PortFirst: 32768, PortLast: 60999, TimeWaitReuse: "2", UpstreamsTCP: 1,
		ConntrackCount: -1, ConntrackMax: -1, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// refuse makes the kernel refuse io_uring.
func (r *Readings) refuse(err error) {
	for i := range r.Ring {
		r.Ring[i].Err = errors.New("not tried")
	}
	r.Ring[0].Err, r.Ring[0].Fix = err, "the fix of the probe"
}

func find(t *testing.T, report *Report, name string) Finding {
	t.Helper()
	for _, f := range report.Findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing is said about %s", name)
	return Finding{}
}

func TestJudge(t *testing.T) {
	require.True(t, Judge(healthy()).OK)
	for _, f := range Judge(healthy()).Findings {
		assert.Equal(t, OK, f.Mark, f.Name)
		assert.Empty(t, f.Fix+f.Costs, f.Name)
	}
	for _, row := range []struct {
		name    string
		change  func(*Readings)
		finding string
		mark    Mark
		says    string // part of state, costs or fix
	}{
		{"Docker", func(r *Readings) { r.Seccomp = 2; r.refuse(syscall.EPERM) }, "seccomp", Warn, "docker run --security-opt"},
		{"Podman", func(r *Readings) { r.Seccomp = 2; r.refuse(syscall.ENOSYS) }, "seccomp", Warn, "podman run --security-opt"},
		{"the fallback", func(r *Readings) { r.refuse(syscall.EPERM) }, "io_uring", Warn, "falls back to the engine netpoll"},
		{"the fix", func(r *Readings) { r.refuse(syscall.EPERM) }, "io_uring", Warn, "the fix of the probe"},
		{"no fallback", func(r *Readings) { r.RingMust = true; r.refuse(syscall.EPERM) }, "io_uring", Fail, "will not start"},
		{"no need", func(r *Readings) { r.RingMay = false; r.refuse(syscall.EPERM) }, "io_uring", OK, "does not need it"},
		{"one operation", func(r *Readings) { r.Ring[1].Err = syscall.EOPNOTSUPP }, "io_uring", Warn, "IORING_OP_RECV (Linux 5.6)"},
		{"a filter that lets it pass", func(r *Readings) { r.Seccomp = 2 }, "seccomp", OK, "io_uring passes it"},
		{"a filter on an old kernel", func(r *Readings) { r.Seccomp = 2; r.Ring[1].Err = syscall.EINVAL }, "seccomp", OK, "passes it"},
		{"the sysctl is to blame", func(r *Readings) { r.Seccomp, r.RingDisabled = 2, "2"; r.refuse(syscall.EPERM) },
			"seccomp", OK, "when the sysctl"},
		{"disabled", func(r *Readings) { r.RingDisabled = "2"; r.refuse(syscall.EPERM) }, "sysctl", Warn, "io_uring_disabled=0"},
		{"disabled but for a group", func(r *Readings) {
			r.RingDisabled, r.RingGroup = "1", "977"
			r.refuse(syscall.EPERM)
		}, "sysctl", Warn, "run Atlas in group 977"},
		{"disabled but for no group", func(r *Readings) { r.RingDisabled = "1"; r.refuse(syscall.EPERM) },
			"sysctl", Warn, "io_uring_group=GROUP"},
		{"in the group", func(r *Readings) { r.RingDisabled, r.RingGroup = "1", "1000" }, "sysctl", OK, "group 1000, in which"},
		{"with the capability", func(r *Readings) { r.RingDisabled, r.SysAdmin = "1", true }, "sysctl", OK, "CAP_SYS_ADMIN"},
		{"an old kernel", func(r *Readings) { r.RingDisabled = "" }, "sysctl", OK, "Linux 6.6"},
		{"SELinux", func(r *Readings) {
			r.Modules, r.Confined = "capability,selinux", "SELinux enforces"
			r.refuse(syscall.EACCES)
		},
			"security modules", Warn, "class io_uring"},
		{"a call", func(r *Readings) { r.Calls = append(r.Calls, Call{"openat2", "5.6", syscall.ENOSYS, "costs"}) },
			"openat2", Warn, "Linux 5.6"},
		{"few files", func(r *Readings) { r.OpenHard = 1024 }, "open files", Warn, "LimitNOFILE"},
		{"no memory", func(r *Readings) { r.refuse(syscall.ENOMEM) }, "locked memory", Warn, "LimitMEMLOCK"},
		{"many workers", func(r *Readings) { r.Workers = 8 }, "CPUs", Warn, "8 workers share 4 CPUs"},
		{"a small quota", func(r *Readings) { r.Quota, r.Workers = 2, 4 }, "CPUs", Warn, "quota of 2"},
		{"a quota that fits", func(r *Readings) { r.Quota, r.Workers = 2, 2 }, "CPUs", OK, "the quota is 2"},
		{"half a CPU", func(r *Readings) { r.Quota = 0.5 }, "CPUs", Warn, "less than a CPU"},
		{"a short queue", func(r *Readings) { r.Somaxconn = 128 }, "backlog", Warn, "net.core.somaxconn=4096"},
		{"as short as asked for", func(r *Readings) { r.Somaxconn, r.Backlog = 128, 100 }, "backlog", OK, ""},
		{"few ports", func(r *Readings) { r.PortFirst = 60000 }, "upstream ports", Warn, "1024 65535"},
		{"conntrack", func(r *Readings) { r.ConntrackCount, r.ConntrackMax = 90, 100 }, "conntrack", Warn, "nf_conntrack_max=400"},
		{"the port of another", func(r *Readings) {
			r.Ports = []Port{{Address: "[::]:80", Err: syscall.EADDRINUSE}}
		}, "port", Fail, "ss -ltnp"},
		{"a port of somebody", func(r *Readings) {
			r.Ports = []Port{{"[::]:80", syscall.EADDRINUSE, &Holder{PID: 7, Name: "nginx"}}}
		}, "port", Fail, "[::]:80 is taken: process 7, nginx, listens there"},
		{"a port of this configuration", func(r *Readings) {
			r.Ports = []Port{{"[::]:80", syscall.EADDRINUSE, &Holder{PID: 7, Name: "atlas", Same: true}}}
		}, "port", OK, "with this configuration now, process 7"},
		{"a port of root's", func(r *Readings) {
			r.Ports = []Port{{Address: "[::]:80", Err: syscall.EACCES}}
		}, "port", Fail, "cap_net_bind_service"},
		{"another machine's address", func(r *Readings) { r.Ports = []Port{{Address: "9.9.9.9:80", Err: syscall.EADDRNOTAVAIL}} },
			"port", Fail, "ip address"},
		{"a clock that was never set", func(r *Readings) { r.Now = time.Unix(0, 0) }, "clock", Warn, "certificates"},
		{"another system", func(r *Readings) { r.System, r.Ring = "darwin", nil }, "system", Warn, "netpoll"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := healthy()
			row.change(r)
			report := Judge(r)
			f := find(t, report, row.finding)
			assert.Equal(t, row.mark, f.Mark)
			assert.Contains(t, f.State+"\n"+f.Costs+"\n"+f.Fix, row.says)
			assert.Equal(t, row.mark != Fail, report.OK)
			for _, f := range report.Findings {
				assert.Equal(t, f.Mark == OK, f.Costs == "", "%s says what it costs", f.Name)
				assert.Equal(t, f.Mark == OK, f.Fix == "", "%s says what to do", f.Name)
			}
		})
	}
}

// The text is aligned, and no wider than it says; the JSON is the report.
func TestWrite(t *testing.T) {
	r := healthy()
	r.Seccomp, r.ConntrackCount, r.ConntrackMax = 2, 1, 100
	r.refuse(syscall.EPERM)
	r.Ports = []Port{{Address: "[::]:80", Err: syscall.EACCES}}
	report := Judge(r)
	var text, encoded bytes.Buffer
	require.NoError(t, report.WriteText(&text))
	column := strings.Index(text.String(), "Linux")
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		assert.LessOrEqual(t, utf8.RuneCountInString(line), textColumns, line)
		if marked := strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "warn ") || strings.HasPrefix(line, "fail "); marked {
			assert.NotEqual(t, byte(' '), line[column], line)
			assert.Equal(t, byte(' '), line[column-1], line)
		}
	}
	assert.Regexp(t, `\n +nft 'table inet atlas \{\n +chain in \{ type filter hook prerouting priority raw;\n`+
		` +tcp dport 80 notrack; tcp sport 80 notrack; \}\n`, text.String())
	assert.Contains(t, text.String(), "1 wrong: Atlas cannot run here like that.\n")
	require.NoError(t, report.WriteJSON(&encoded))
	var again Report
	require.NoError(t, json.Unmarshal(encoded.Bytes(), &again))
	assert.Equal(t, *report, again)
}

// What a configuration asks for is read from it, and its port is tried.
func TestRead(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	number, _ := strconv.Atoi(port)
	cfg := &config.Config{
		Listen:    config.Listen{Address: "127.0.0.1", Port: number, Engine: config.Netpoll, Workers: 3, Backlog: 7},
		Upstreams: []config.Upstream{{Address: "unix:/x"}, {Address: "::1"}},
	}
	r := Read(cfg)
	require.Len(t, r.Ports, 1)
	assert.ErrorIs(t, r.Ports[0].Err, syscall.EADDRINUSE)
	assert.Equal(t, 1, r.UpstreamsTCP)
	assert.Equal(t, 3, r.Workers)
	assert.Equal(t, 7, r.Backlog)
	require.NoError(t, taken.Close())
	r = Read(cfg)
	assert.NoError(t, r.Ports[0].Err)
	assert.True(t, Judge(r).OK)
	r = Read(nil)
	assert.Empty(t, r.Ports)
	assert.Positive(t, r.CPUs)
	if _, err := os.Stat("/proc/self/status"); err == nil {
		assert.NotEmpty(t, r.Kernel)
		assert.Greater(t, len(r.Ring), 10)
		assert.GreaterOrEqual(t, r.Seccomp, 0)
		assert.Positive(t, r.OpenHard)
		assert.Positive(t, r.Somaxconn)
		assert.Len(t, r.Calls, 4)
	}
}
