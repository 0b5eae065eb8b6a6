// Package host is what the lab knows of the machine it runs on: facts for the
// record, noise before a run, which core is whose, and the CPU clocks of other
// processes. It refuses to change the machine: it pins the lab's own processes,
// raises their limit of open files, and nothing else. What needs Linux says so with an error elsewhere, and the
// lab goes on without it. Functions may be called from any goroutine unless
// they say otherwise.
package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrUnsupported is the error of what this operating system cannot do.
var ErrUnsupported = errors.New("not supported on this operating system")

// ErrNoProcess is the error of a Meter that was not made of a process.
var ErrNoProcess = errors.New("its process is not known, or not of this machine")

// sbin directories are missing in the PATH of ordinary users on Debian.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin"}

// Find returns the path of an installed program. Its error says how to get it.
func Find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run `make setup`, or install the package %s", program, program)
}

// Version returns what program says of itself when asked with flag, without
// its own name and the copyright: "nginx/1.22.1". Some programs, wrk among
// them, answer and then exit with an error.
func Version(path, flag string) string {
	out, _ := exec.Command(path, flag).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " Copyright")
	program := filepath.Base(path)
	line = strings.TrimPrefix(strings.TrimPrefix(line, program+" version: "), program+" ")
	if line = strings.TrimSpace(line); line == "" {
		return "unknown"
	}
	return line
}

// readLine returns the first line of a file, or "" where it cannot be read.
func readLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}
