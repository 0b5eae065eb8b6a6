package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSetup runs setup.sh where nothing but stubs is in the PATH.
func TestSetup(t *testing.T) {
	const (
		asRoot   = "echo 0"
		asUser   = "echo 1000"
		works    = "echo ran: ${0##*/} $*"
		noWrk    = `case "$*" in *" wrk") exit 1 ;; esac`
		password = "exit 1"
		passes   = `shift; exec "$@"`
		dynamic  = "echo configure arguments: --modules-path=/no/modules --with-stream=dynamic --with-x >&2"
		static   = "echo configure arguments: --modules-path=/no/modules --with-stream >&2"
	)
	for _, row := range []struct {
		name   string
		stubs  map[string]string
		want   []string
		refuse string
	}{
		{"apt-get as root", map[string]string{"id": asRoot, "apt-get": works}, []string{
			"setup: env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wrk",
			"setup: env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium",
			"ran: apt-get install", "setup: done",
		}, "sudo"},
		{"apt-get by sudo", map[string]string{"id": asUser, "sudo": passes, "apt-get": works},
			[]string{"setup: sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install", "ran: apt-get install", "setup: done"}, ""},
		{"sudo asks for a password", map[string]string{"id": asUser, "sudo": password, "apt-get": works},
			[]string{"installing needs root: run 'sudo apt-get install", "the lab runs without them"}, "ran:"},
		{"no sudo", map[string]string{"id": asUser, "dnf": works},
			[]string{"installing needs root: run 'sudo dnf install"}, "ran:"},
		{"dnf", map[string]string{"id": asRoot, "dnf": works}, []string{"ran: dnf install -y wrk"}, ""},
		{"apk", map[string]string{"id": asRoot, "apk": works}, []string{"ran: apk add wrk"}, ""},
		{"brew needs no root", map[string]string{"id": asUser, "brew": works}, []string{"ran: brew install wrk"}, "sudo"},
		{"one package is not to be had", map[string]string{"id": asRoot, "apk": noWrk},
			[]string{"setup: missing: wrk", "apk could not install them", "the lab runs without them"}, "done"},
		{"nginx without its module, on Debian", map[string]string{"id": asRoot, "apt-get": works, "nginx": dynamic}, []string{
			"setup: env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libnginx-mod-stream", "setup: done",
		}, "recommends nginx"},
		{"nginx without its module, elsewhere", map[string]string{"id": asRoot, "dnf": works, "nginx": dynamic},
			[]string{"ran: dnf install -y nginx-mod-stream"}, ""},
		{"nginx with all compiled in", map[string]string{"id": asRoot, "dnf": works, "nginx": static},
			[]string{"ran: dnf install -y wrk"}, "stream"},
		{"no package manager", map[string]string{"id": asRoot}, []string{"no apt-get, dnf, apk or brew here"}, "ran:"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range []string{"env", "tee", "chmod", "rm", "true"} {
				path, err := exec.LookPath(tool)
				require.NoError(t, err)
				require.NoError(t, os.Symlink(path, filepath.Join(bin, tool)))
			}
			for name, script := range row.stubs {
				require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
			}
			policy := filepath.Join(t.TempDir(), "policy-rc.d")
			cmd := exec.Command("/bin/sh", "setup.sh", "chromium")
			cmd.Env = []string{"PATH=" + bin, "POLICY_RC_D=" + policy}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			for _, want := range row.want {
				require.Contains(t, string(out), want)
			}
			if row.refuse != "" {
				require.NotContains(t, string(out), row.refuse)
			}
			require.NoFileExists(t, policy, "services are forbidden only while installing")
		})
	}
}
