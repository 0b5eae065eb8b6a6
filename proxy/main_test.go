package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain runs the tests, or is the program: where this binary is called atlas. The
// other two are the processes of TestProcessChaos.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"atlas": main, "chaos-atlas": atlasRole, "chaos-upstream": upstreamRole})
}

// good is a configuration that check finds nothing wrong with.
const good = "[listen]\nport = 0\nmode = \"static\"\nroot = \".\"\n"

func TestRun(t *testing.T) {
	t.Chdir(t.TempDir())
	for file, text := range map[string]string{
		"good.toml":    good,
		"warn.toml":    good + "[routing]\nstrategy = \"random\"\n",
		"unknown.toml": "[listen]\nport = 0\nmode = \"static\"\nrooot = \".\"\n",
		"binary.toml":  "\x7fELF\x02\x01\x01\x00\x00",
		"huge.toml":    strings.Repeat("# nothing\n", 500_000),
		"root.toml":    strings.Replace(good, `"."`, `"/no/such/root"`, 1),
		"tls.toml":     good + "[listen.tls]\ncert = \"c\"\nkey = \"k\"\n",
		"check":        good,
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	require.NoError(t, os.Mkdir("folder", 0o755))
	for _, row := range []struct {
		name, args     string
		status         int
		stdout, stderr string // part of it; empty: nothing is printed there
	}{
		{"version", "version", 0, fmt.Sprintf("atlas unknown %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH), ""},
		{"version as a flag", "--version", 0, "atlas unknown", ""},
		{"version as a short flag", "-version", 0, "atlas unknown", ""},
		{"version of something", "version good.toml", 2, "", `atlas: version takes no argument: what is "good.toml"?`},
		{"help", "help", 0, usage, ""},
		{"help as a flag", "-h", 0, usage, ""},
		{"help as a long flag", "--help", 0, usage, ""},
		{"help as flags are in Go", "-help", 0, usage, ""},
		{"help of a command", "check -h", 0, usage, ""},
		{"help behind a file", "good.toml --help", 0, usage, ""},
		{"help on something", "help check", 0, usage, ""},

		{"an unknown flag", "-x", 2, "", "atlas: unknown flag \"-x\"\n\n" + usage},
		{"a flag as other servers have it", "-c good.toml", 2, "", `atlas: unknown flag "-c"`},
		{"an unknown flag of check", "check --strict good.toml", 2, "", `atlas: unknown flag "--strict"`},
		{"an unknown command", "run good.toml", 2, "", "atlas: unknown command \"run\"\n\n" + usage},
		{"a word that is nothing", "chekc", 2, "", "atlas: \"chekc\" is neither a command nor a file: see atlas help\n"},
		{"two files", "good.toml warn.toml", 2, "", `atlas: one configuration at a time, not also "warn.toml"`},
		{"two files to check", "check good.toml warn.toml", 2, "", `atlas: one configuration at a time, not also "warn.toml"`},

		{"nothing, and no file here", "", 2, "", "atlas: there is no atlas.toml here: name the configuration, as in: atlas CONFIG\n"},
		{"check, and no file here", "check", 2, "", "atlas: there is no atlas.toml here"},
		{"a file that is not there", "none.toml", 2, "", "atlas: open none.toml: no such file or directory\n"},
		{"a file that is not there, to check", "check folder/none.toml", 2, "", "atlas: open folder/none.toml: no such file"},
		{"a directory", "folder", 2, "", "atlas: folder is a directory: name the configuration in it\n"},
		{"a directory to check", "check ./folder", 2, "", "atlas: ./folder is a directory"},
		{"below a file", "good.toml/x.toml", 2, "", "atlas: open good.toml/x.toml: not a directory\n"},

		{"a good file", "check good.toml", 0, "good.toml: ok\n", ""},
		{"a good file that is named like a command", "check ./check", 0, "./check: ok\n", ""},
		{"a file to warn of", "check warn.toml", 0, "warn.toml: ok\n", "warn.toml:5:2: warning: mode \"static\" does not use [routing]\n"},
		{"an unknown key", "check unknown.toml", 2, "", "unknown.toml:4:1: unknown key `rooot`"},
		{"an unknown key shows its line", "check unknown.toml", 2, "", "\n  4 | rooot = \".\"\n    | ^^^^^ did you mean `root`?"},
		{"an unknown key, not checked but run", "unknown.toml", 2, "", "unknown.toml:4:1: unknown key `rooot`"},
		{"a program", "check binary.toml", 2, "", "binary.toml:1:1: "},
		{"a disk image", "check huge.toml", 2, "", "huge.toml:1:1: the file is larger than a megabyte"},
		{"a device without an end", "check /dev/zero", 2, "", "/dev/zero:1:1: the file is larger than a megabyte"},

		{"a root that is not there", "root.toml", 1, "", `level=ERROR msg="cannot start" config=root.toml error="[static_files] root: `},
		{"no certificate", "tls.toml", 1, "", `error="[listen.tls] open c: no such file or directory"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(row.args), &stdout, &stderr)
			assert.Equal(t, row.status, status)
			assert.Contains(t, stdout.String(), row.stdout)
			assert.Equal(t, row.stdout == "", stdout.Len() == 0, stdout.String())
			assert.Contains(t, stderr.String(), row.stderr)
			assert.Equal(t, row.stderr == "", stderr.Len() == 0, stderr.String())
		})
	}
	t.Run("a name that is empty", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, 2, run([]string{""}, &stdout, &stderr))
		assert.Contains(t, stderr.String(), "the name of the configuration is empty")
	})
	t.Run("the file that is read without a name", func(t *testing.T) {
		require.NoError(t, os.WriteFile(defaultConfig, []byte(good), 0o644))
		var stdout, stderr bytes.Buffer
		assert.Zero(t, run([]string{"check"}, &stdout, &stderr))
		assert.Equal(t, "atlas.toml: ok\n", stdout.String())
	})
}

// The usage fits a terminal and says what every command is.
func TestUsage(t *testing.T) {
	for line := range strings.Lines(usage) {
		assert.LessOrEqual(t, len(line), 91, line)
	}
	for _, word := range []string{"atlas [CONFIG]", "atlas check", "atlas version", "atlas help", "SIGTERM", "Exit status"} {
		assert.Contains(t, usage, word)
	}
}

// The sample of the README passes the check as it is printed, in every mode; what
// its mode has no use for is told.
func TestRunChecksSample(t *testing.T) {
	sample, err := os.ReadFile("config/testdata/seed.toml")
	require.NoError(t, err)
	for mode, unused := range map[string][]string{
		"http": {"[static_files]"}, "tcp": {"[static_files]"}, "static": {"[[upstreams]]", "[routing]"},
	} {
		t.Run(mode, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.toml")
			text := strings.Replace(string(sample), `mode = "http"`, fmt.Sprintf("mode = %q", mode), 1)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			var stdout, stderr bytes.Buffer
			assert.Zero(t, run([]string{"check", file}, &stdout, &stderr))
			assert.Equal(t, file+": ok\n", stdout.String())
			wontStart := "warning: it will not start yet: [listen.tls] with mode = \"tcp\""
			assert.Equal(t, mode == "tcp", strings.Contains(stderr.String(), wontStart))
			warnings := strings.ReplaceAll(stderr.String(), wontStart, "")
			assert.Equal(t, len(unused), strings.Count(warnings, "warning: "), stderr.String())
			for _, table := range unused {
				assert.Contains(t, stderr.String(), fmt.Sprintf("warning: mode %q does not use %s\n", mode, table))
			}
		})
	}
}
