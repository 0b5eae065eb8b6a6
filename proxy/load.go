package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"atlas/proxy/config"
)

// load reads the configuration and prints what is wrong with it.
func load(file string, stderr io.Writer) (*config.Reading, bool) {
	reading, err := readConfig(file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return nil, false
	}
	for i := range reading.Warnings {
		fmt.Fprintln(stderr, reading.Warnings[i].String())
	}
	return reading, true
}

// readConfig reads a configuration under the environment of the process. The error
// is config.Errors, or says why the file could not be read.
func readConfig(file string) (*config.Reading, error) {
	name := cmp.Or(file, config.DefaultFile)
	text, err := read(name)
	switch {
	case err == nil:
		return config.Read(name, text, os.LookupEnv)
	case errors.Is(err, os.ErrNotExist) && leadsNowhere(name):
		return nil, fmt.Errorf("atlas: %s is a link to a file that is not there", name)
	case errors.Is(err, os.ErrNotExist) && file == "":
		return nil, fmt.Errorf("atlas: there is no %s here: name the configuration, as in: atlas CONFIG", name)
	case errors.Is(err, os.ErrNotExist) && bareWord(name):
		return nil, fmt.Errorf("atlas: %q is neither a command nor a file%s", name,
			cmp.Or(meant(name), ": see atlas help"))
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("atlas: there is no file %s%s", name, beside(name))
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("atlas: %s may not be read by user %d", name, os.Getuid())
	case errors.Is(err, syscall.EISDIR):
		return nil, fmt.Errorf("atlas: %s is a directory: name the configuration in it%s", name, beside(name+"/x"))
	}
	return nil, fmt.Errorf("atlas: %w", err)
}

// leadsNowhere reports that a file that is not there is a link.
func leadsNowhere(name string) bool {
	stat, err := os.Lstat(name)
	return err == nil && stat.Mode()&os.ModeSymlink != 0
}

// beside names the file that was meant by one that is not there.
func beside(name string) string {
	folder := filepath.Dir(name)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Sprintf(": there is no folder %s", folder)
	}
	var files []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".toml") {
			files = append(files, strings.TrimSuffix(entry.Name(), ".toml"))
		}
	}
	if near := config.Nearest(strings.TrimSuffix(filepath.Base(name), ".toml"), files); near != "" {
		return fmt.Sprintf(": did you mean %s?", filepath.Join(folder, near+".toml"))
	}
	if len(files) == 1 {
		return fmt.Sprintf(": there is %s", filepath.Join(folder, files[0]+".toml"))
	}
	return ""
}

// readMax is more than Parse takes: a device or a disk image that is named by
// mistake must not fill the memory.
const readMax = 2 << 20

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, readMax))
}
