package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
)

// TestMain runs the tests, or is the program: where this binary is called atlas. The
// others are the processes of TestProcessChaos, and the heirs of TestUpgradeFails.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"atlas": main, "chaos-atlas": atlasRole, "chaos-upstream": upstreamRole, "heir": heirRole,
	})
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
		"log.toml":     good + "[access_log]\npath = \"no/such/log\"\n",
		"address.toml": strings.Replace(good, "port = 0", "port = 0\naddress = \"192.0.2.1\"", 1),
		"admin.toml":   good + "[admin]\naddress = \"192.0.2.1:9000\"\n",
		"names.toml":   strings.Replace(good, "port = 0", "port = 0\naddress = \"host.invalid\"", 1),
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	require.NoError(t, os.Mkdir("folder", 0o755))
	require.NoError(t, os.Symlink("nowhere.toml", "link.toml"))
	for _, row := range []struct {
		name, args     string
		status         int
		stdout, stderr string // part of it; empty: nothing is printed there
	}{
		{"version", "version", 0, fmt.Sprintf("atlas unknown %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH), ""},
		{"version as a flag", "--version", 0, "atlas unknown", ""},
		{"version as a short flag", "-version", 0, "atlas unknown", ""},
		{"version of something", "version good.toml", 2, "", `atlas: version takes no argument: what is "good.toml"?`},
		{"help", "help", 0, usage(), ""},
		{"help as a flag", "-h", 0, usage(), ""},
		{"help as a long flag", "--help", 0, usage(), ""},
		{"help as flags are in Go", "-help", 0, usage(), ""},
		{"help of a command", "check -h", 0, "atlas check [CONFIG]", ""},
		{"help behind a file", "good.toml --help", 0, usage(), ""},
		{"help on a command", "help check", 0, "atlas check [CONFIG]", ""},
		{"help on what is none", "help chekc", 2, "", "atlas: nothing is known of \"chekc\": did you mean atlas check?\n"},
		{"help on what is like nothing", "help xyzzy", 2, "", "atlas: nothing is known of \"xyzzy\": the tables are listen, listen.tls, "},
		{"help on a key", "help listen.port", 0, "port in [listen]\n", ""},
		{"help on a table", "help [[upstreams]]", 0, "[[upstreams]]\n", ""},
		{"help on the access log", "help access_log", 0, "\n  total_ms      ", ""},
		{"help on its variables", "help variables", 0, "\nVariables of access_log.format, in braces;", ""},
		{"help on one of them", "help total_ms", 0, "\n  total_ms      ", ""},
		{"help on a key with a typo", "help listen.prot", 2, "", ": did you mean atlas help listen.port?\n"},
		{"the schema", "schema", 0, "https://json-schema.org/draft/2020-12/schema", ""},
		{"the doctor", "doctor", 0, "Atlas can run here.\n", ""},
		{"the doctor on a file", "doctor --json good.toml", 0, "\"name\": \"port\",\n      \"mark\": \"ok\"", ""},
		{"the doctor on a broken one", "doctor unknown.toml", 2, "", "unknown key `rooot`"},
		{"help on two things", "help check version", 2, "", "atlas: help takes [TOPIC]: what is \"version\"?"},

		{"an unknown flag", "-x", 2, "", "atlas: unknown flag \"-x\"\n\n" + usage()},
		{"a flag as other servers have it", "-c good.toml", 2, "", "atlas: unknown flag \"-c\": type atlas good.toml\n"},
		{"another one", "--config=good.toml", 2, "", "atlas: unknown flag \"--config=good.toml\": type atlas good.toml\n"},
		{"one without a file", "check --config", 2, "", "atlas: unknown flag \"--config\": type atlas check CONFIG\n"},
		{"an unknown flag of check", "check --strict good.toml", 2, "", `atlas: unknown flag "--strict"`},
		{"an unknown command", "run good.toml", 2, "", "atlas: unknown command \"run\": type atlas good.toml\n"},
		{"it alone", "run", 2, "", "atlas: \"run\" is neither a command nor a file: type atlas CONFIG\n"},
		{"an unknown command like none", "go good.toml", 2, "", "atlas: unknown command \"go\"\n\n" + usage()},
		{"a word that is nothing", "chekc", 2, "", "atlas: \"chekc\" is neither a command nor a file: did you mean atlas check?\n"},
		{"a word that is like nothing", "xyz", 2, "", "atlas: \"xyz\" is neither a command nor a file: see atlas help\n"},
		{"a command with a typo, and its file", "chekc good.toml", 2, "", "atlas: unknown command \"chekc\": did you mean atlas check?\n"},
		{"two files", "good.toml warn.toml", 2, "", `atlas: one configuration at a time, not also "warn.toml"`},
		{"two files to check", "check good.toml warn.toml", 2, "", `atlas: one configuration at a time, not also "warn.toml"`},

		{"nothing, and no file here", "", 2, "", "atlas: there is no atlas.toml here: name the configuration, as in: atlas CONFIG\n"},
		{"check, and no file here", "check", 2, "", "atlas: there is no atlas.toml here"},
		{"a file that is not there", "none.toml", 2, "", "atlas: there is no file none.toml\n"},
		{"a file with a typo", "godo.toml", 2, "", "atlas: there is no file godo.toml: did you mean good.toml?\n"},
		{"a file that is not there, to check", "check folder/none.toml", 2, "", "atlas: there is no file folder/none.toml\n"},
		{"a folder that is not there", "check no/a.toml", 2, "", "atlas: there is no file no/a.toml: there is no folder no\n"},
		{"a link to nowhere", "check link.toml", 2, "", "atlas: link.toml is a link to a file that is not there\n"},
		{"a directory", "folder", 2, "", "atlas: folder is a directory: name the configuration in it\n"},
		{"a directory to check", "check ./folder", 2, "", "atlas: ./folder is a directory"},
		{"below a file", "good.toml/x.toml", 2, "", "atlas: open good.toml/x.toml: not a directory\n"},

		{"a good file", "check good.toml", 0, "good.toml: ok\n", ""},
		{"a file behind two dashes", "check -- good.toml", 0, "good.toml: ok\n", ""},
		{"a good file that is named like a command", "check ./check", 0, "./check: ok\n", ""},
		{"a file to warn of", "check warn.toml", 0, "warn.toml: ok\n", "warn.toml:5:2: warning: mode \"static\" does not use [routing]\n"},
		{"an unknown key", "check unknown.toml", 2, "", "unknown.toml:4:1: unknown key `rooot`"},
		{"an unknown key shows its line", "check unknown.toml", 2, "", "\n  4 | rooot = \".\"\n    | ^^^^^ did you mean `root`?"},
		{"an unknown key, not checked but run", "unknown.toml", 2, "", "unknown.toml:4:1: unknown key `rooot`"},
		{"a program", "check binary.toml", 2, "", "binary.toml:1:1: "},
		{"a disk image", "check huge.toml", 2, "", "huge.toml:1:1: the file is larger than a megabyte"},
		{"a device without an end", "check /dev/zero", 2, "", "/dev/zero:1:1: the file is larger than a megabyte"},

		{"a root that is not there, to check", "check root.toml", 2, "", "root.toml:4:8: open /no/such/root: no such file or directory\n"},
		{"only the text of it", "check --text root.toml", 0, "root.toml: ok\n", ""},
		{"what it comes to all the same", "check --print root.toml", 2, "root = \"/no/such/root\"   ", "root.toml:4:8: open /no"},
		{"a log that may not be written", "check log.toml", 2, "", "log.toml:6:8: create no/such/log: no such file or directory\n"},
		{"an address of another machine", "check address.toml", 2, "", "address.toml:3:11: this machine has no address 192.0.2.1\n"},
		{"an admin address of another machine", "check admin.toml", 2, "",
			"admin.toml:6:11: this machine has no address 192.0.2.1\n"},
		{"no certificate, to check", "check tls.toml", 2, "", "tls.toml:6:8: open c: no such file or directory\n  6 | cert = \"c\"\n"},
		{"a name that nobody has", "check --names names.toml", 2, "", "names.toml:3:11: lookup host.invalid"},
		{"and nobody was asked", "check names.toml", 0, "names.toml: ok\n", ""},
		{"both forms", "check --json --print good.toml", 2, "", "atlas: --print prints a file, and --json prints JSON"},
		{"JSON", "check --json warn.toml", 0, `"key": "routing"`, ""},
		{"JSON of errors", "check --json unknown.toml", 2, "\"line\": 4,\n      \"column\": 1,\n      \"width\": 5,", ""},
		{"JSON of no file", "check --json none.toml", 2, `"message": "atlas: there is no file none.toml"`, ""},

		{"a root that is not there", "root.toml", 1, "",
			`level=ERROR msg="cannot start" config=root.toml error="root.toml:4:8: static_files.root: open /no/such/root: no`},
		{"no certificate", "tls.toml", 1, "", `error="tls.toml:6:8: listen.tls.cert: open c: no such file`},
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
		require.NoError(t, os.WriteFile(config.DefaultFile, []byte(good), 0o644))
		var stdout, stderr bytes.Buffer
		assert.Zero(t, run([]string{"check"}, &stdout, &stderr))
		assert.Equal(t, "atlas.toml: ok\n", stdout.String())
	})
}

// full is an output that has no room.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return 0, syscall.ENOSPC
	}
	f.room -= len(b)
	return len(b), nil
}

// A command whose output is not all there has failed: what a script keeps of it is half
// a configuration, or nothing.
func TestRunIntoFullDisk(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("good.toml", []byte(good), 0o644))
	for _, args := range []string{
		"check good.toml", "check --print good.toml", "check --json good.toml", "schema", "help", "help listen",
		"check -h", "version", "doctor",
	} {
		var stderr bytes.Buffer
		assert.Equal(t, exitRuntime, run(strings.Fields(args), new(full), &stderr), args)
		assert.Equal(t, "atlas: no space left on device\n", stderr.String(), args)
	}
}

// The usage fits a terminal and says what every command is.
func TestUsage(t *testing.T) {
	for line := range strings.Lines(usage()) {
		assert.LessOrEqual(t, len(line), 91, line)
	}
	for _, word := range []string{"atlas [CONFIG]", "atlas check", "atlas version", "atlas help", "SIGTERM", "Exit status"} {
		assert.Contains(t, usage(), word)
	}
}

// Every command has a line in the usage, and a help of its own that fits a terminal.
func TestHelp(t *testing.T) {
	for _, c := range commands() {
		assert.Contains(t, usage(), c.line()+" ")
		for line := range strings.Lines(c.help()) {
			assert.LessOrEqual(t, len(line), 91, line)
		}
		assert.False(t, strings.HasSuffix(c.short, "."), "%s: the line of the usage is no sentence", c.name)
	}
}

// What the command line says to a command reaches it, and what the command does not
// know is refused with what was meant.
func TestFlags(t *testing.T) {
	x := &verb{name: "x", args: "OLD NEW [MORE]", flags: []flag{{name: "json"}, {name: "pid", value: "NUMBER"}}}
	for _, row := range []struct {
		args, problem string
		want          []string
		flags         map[string]string
	}{
		{"a b", "", []string{"a", "b"}, map[string]string{}},
		{"-json a --pid=7 b", "", []string{"a", "b"}, map[string]string{"json": "", "pid": "7"}},
		{"a b --json", "", []string{"a", "b"}, map[string]string{"json": ""}},
		{"a -- --json", "", []string{"a", "--json"}, map[string]string{}},
		{"a -", "", []string{"a", "-"}, map[string]string{}},
		{"a", "x takes OLD NEW [MORE]", []string{"a"}, map[string]string{}},
		{"a b c d", `x takes OLD NEW [MORE]: what is "d"?`, []string{"a", "b", "c", "d"}, map[string]string{}},
		{"--jsno a b", `unknown flag "--jsno": did you mean --json?`, nil, map[string]string{}},
		{"--json=1 a b", "--json takes no value", nil, map[string]string{}},
		{"--pid a b", "--pid takes a value: --pid=NUMBER", nil, map[string]string{}},
	} {
		t.Run(row.args, func(t *testing.T) {
			c := &call{command: x, flags: make(map[string]string)}
			assert.Equal(t, row.problem, c.read(strings.Fields(row.args)))
			assert.Equal(t, row.want, c.args)
			assert.Equal(t, row.flags, c.flags)
		})
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
			assert.Zero(t, run([]string{"check", "--text", file}, &stdout, &stderr))
			assert.Equal(t, file+": ok\n", stdout.String())
			assert.Equal(t, len(unused), strings.Count(stderr.String(), "warning: "), stderr.String())
			for _, table := range unused {
				assert.Contains(t, stderr.String(), fmt.Sprintf("warning: mode %q does not use %s\n", mode, table))
			}
		})
	}
}
