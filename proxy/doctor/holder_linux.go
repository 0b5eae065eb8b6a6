package doctor

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"atlas/proxy/config"
)

// listening is how /proc/net/tcp writes TCP_LISTEN.
const listening = "0A"

// holder finds the process that listens on a port. It finds none of another user,
// unless this one is root, and none of another network namespace. file is the
// configuration that is asked about.
func holder(port int, file string) *Holder {
	sockets := listeners(port)
	if len(sockets) == 0 {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !sockets[to] {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || pid == os.Getpid() {
			continue
		}
		return &Holder{PID: pid, Name: text(process + "/comm"), Same: same(process, file)}
	}
	return nil
}

// listeners are the sockets that listen on a port, as links in /proc name them.
func listeners(port int) map[string]bool {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text()) // sl local remote state ... inode is the tenth
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+fields[9]+"]"] = true
			}
		}
		_ = f.Close() // it was only read
	}
	return sockets
}

// same reports that a process is an Atlas that was started with this configuration.
func same(process, file string) bool {
	args := strings.Split(text(process+"/cmdline"), "\x00")
	if filepath.Base(args[0]) != filepath.Base(os.Args[0]) {
		return false
	}
	ours, err := os.Stat(file)
	if err != nil {
		return false
	}
	if len(args) == 1 || len(args) == 2 && args[1] == "upgrade" {
		args = append(args, config.DefaultFile)
	}
	for _, arg := range args[1:] {
		path := arg
		if !filepath.IsAbs(path) {
			path = filepath.Join(process, "cwd", arg)
		}
		if theirs, err := os.Stat(path); err == nil && os.SameFile(ours, theirs) {
			return true
		}
	}
	return false
}
