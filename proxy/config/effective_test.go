package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// environment is a Lookup.
func environment(variables map[string]string) Lookup {
	return func(name string) (string, bool) {
		value, set := variables[name]
		return value, set
	}
}

// What Print says is a file, and one that configures the same; every key is in it
// that its tables have.
func TestPrint(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	require.NoError(t, err)
	printed := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		reading, err := Read("atlas.toml", text, nil)
		if err != nil {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			again, err := Read("atlas.toml", []byte(reading.Print()), nil)
			require.NoError(t, err, reading.Print())
			assert.Equal(t, reading.Config, again.Config)
			lines := printedKeys(reading.Print())
			for _, v := range reading.Values() {
				assert.True(t, lines[v.Key.Path], "%s is not printed", v.Key.Path)
				printed[v.Key.Path] = true
			}
		})
	}
	for _, k := range Keys() {
		assert.True(t, printed[k.Path] || k.Alias != "", "no file in testdata has the table of %s, or Values leaves it out", k.Path)
	}
}

// printedKeys are those that stand in a printed configuration, set or not, by their
// paths.
func printedKeys(text string) map[string]bool {
	keys := make(map[string]bool)
	table := ""
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(strings.TrimSpace(line), "[]")
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "# "), " ")
		keys[table+"."+name] = true
	}
	return keys
}

const variables = `[listen]
port = "${PORT}"
address = "${HOST:-::1}"
pin = "${PIN}"
accept_proxy = ["192.0.2.1", "${NET}/8"]
mode = "${MODE:-static}"
[static_files]
root = "/srv/${SITE}/$$1/a\"b"
cache_bytes = "${CACHE:-1MiB}"
[timeouts]
idle = "${IDLE}s"
`

func TestPrintVariables(t *testing.T) {
	lookup := environment(map[string]string{"PORT": "8123", "PIN": "false", "NET": "10.0.0.0", "SITE": "secret", "IDLE": "7", "CACHE": ""})
	reading, err := Read("atlas.toml", []byte(variables), lookup)
	require.NoError(t, err)
	c := reading.Config
	assert.Equal(t, 8123, c.Listen.Port)
	assert.Equal(t, "::1", c.Listen.Address)
	assert.False(t, c.Listen.Pin)
	assert.Equal(t, `/srv/secret/$1/a"b`, c.StaticFiles.Root)
	assert.EqualValues(t, 1<<20, c.StaticFiles.CacheBytes)
	printed := reading.Print()
	again, err := Read("atlas.toml", []byte(printed), lookup)
	require.NoError(t, err, printed)
	assert.Equal(t, c, again.Config)
	golden(t, "testdata/variables-print", printed)
	for _, value := range []string{"8123", "pin = false", "10.0.0.0", "secret"} {
		assert.NotContains(t, printed, value)
	}
}

// Two readings of one text differ by what the environment says, and nothing shows it.
func TestValueSame(t *testing.T) {
	read := func(site string) []Value {
		text := "[listen]\nport = 0\nmode = \"static\"\nroot = \"${SITE}\"\n"
		reading, err := Read("atlas.toml", []byte(text), environment(map[string]string{"SITE": site}))
		require.NoError(t, err)
		return reading.Values()
	}
	here, there := read("/here"), read("/there")
	require.Equal(t, len(here), len(there))
	var differ []string
	for i := range here {
		assert.Equal(t, here[i].Text, there[i].Text)
		if !here[i].Same(&there[i]) {
			differ = append(differ, here[i].Key.Path)
		}
	}
	assert.Equal(t, []string{"static_files.root"}, differ)
}

func TestVariableFaults(t *testing.T) {
	lookup := environment(map[string]string{
		"SECRET": "q7.Zk", "EMPTY": "", "LONG": strings.Repeat("q7.Zk", 20), "CONTROL": "q7.Zk\x01", "HUGE": "777777777777"})
	for _, row := range []struct{ name, line, want, hint string }{
		{"unset", `index = "a${NONE}"`, "4:11: the variable NONE is not set", "write ${NONE:-default}"},
		{"no name", `index = "${}"`, `4:10: "" is no name of a variable`, ""},
		{"a name that is none", `index = "${1A}"`, `4:10: "1A" is no name of a variable`, ""},
		{"a bare variable", `index = "a$HOME"`, "4:11: a dollar sign begins no variable here", "$$ for a dollar sign"},
		{"not closed", `index = "${HOME"`, "4:10: a dollar sign begins no variable here", ""},
		{"a default with a variable", `index = "${A:-${B}}"`, "a default has no variable in it", ""},
		{"behind an escape", `index = "\t${NONE}"`, "4:12: the variable NONE is not set", ""},
		{"a string", `index = "${SECRET}/x"`, "\"${SECRET}/x\" is no file name", "SECRET is not shown"},
		{"an empty one", `index = "${EMPTY}"`, "\"${EMPTY}\" is no file name", ""},
		{"a long one", `index = "${LONG}/x"`, "\"${LONG}/x\" is no file name", ""},
		{"a control character", `index = "${CONTROL}"`, "`index` has a control character in it", ""},
		{"no number of bytes", `cache_bytes = "${SECRET}"`, `"${SECRET}" is no number of bytes`, ""},
		{"no boolean", `precompressed = "${SECRET}"`, "`precompressed` takes true or false, not \"${SECRET}\"", ""},
		{"a variable and more", `precompressed = "${SECRET} "`, "`precompressed` takes true or false, not a string", ""},
		{"no duration", "[timeouts]\nidle = \"${SECRET}\"", `"${SECRET}" is no duration`, ""},
		{"no unit", "[timeouts]\nidle = \"${HUGE}\"", "`idle` has no unit", ""},
		{"out of range", "[limits]\nheader_fields = \"${HUGE}\"", "${HUGE} is out of range for `header_fields`", ""},
		{"no integer", "[limits]\nheader_fields = \"${SECRET}\"", "`header_fields` takes an integer, not \"${SECRET}\"", ""},
		{"no choice", "[routing]\nstrategy = \"${SECRET}\"", `"${SECRET}" is no strategy`, ""},
		{"a part that is quoted", "[routing]\nhash = \"header=${SECRET} \"", "`hash` does not take \"header=${SECRET} \"", ""},
		{"a network", "[routing]\ntrusted_proxies = [\"${SECRET}\", \"x\"]", `"${SECRET}" is neither an address nor a network`, ""},
		{"a name that is there twice", "[[upstreams]]\nname = \"${SECRET}\"\naddress = \"unix:/a\"\n[[upstreams]]\nname = \"q7.Zk\"\n" +
			"address = \"unix:/b\"", "two upstreams have the name", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := "listen = {port = 0, mode = \"static\"}\n[static_files]\nroot = \"/srv\"\n" + row.line + "\n"
			_, err := Read("atlas.toml", []byte(text), lookup)
			require.Error(t, err)
			assert.Contains(t, err.Error(), row.want)
			assert.Contains(t, err.Error(), row.hint)
			if row.name != "a name that is there twice" { // where the file has it as well
				assert.NotContains(t, err.Error(), "q7.Zk")
			}
			assert.NotContains(t, err.Error(), "777777")
		})
	}
}

// A problem that comes out later has its place, and keeps what is secret.
func TestReadingProblem(t *testing.T) {
	text := "[listen]\nport = 0\nmode = \"static\"\nroot = \"/srv/${SITE}\"\n"
	reading, err := Read("atlas.toml", []byte(text), environment(map[string]string{"SITE": "q7Zk"}))
	require.NoError(t, err)
	problem := reading.Problem("listen.root", "open /srv/q7Zk: no such file", "make /srv/q7Zk")
	assert.Equal(t, "atlas.toml:4:8: open /srv/${SITE}: no such file\n  4 | root = \"/srv/${SITE}\"\n"+
		"    |        ^^^^^^^^^^^^^^ make /srv/${SITE}", problem.Error())

	// The log of a start says which file, unless that is a secret.
	problem = reading.Revealing().Problem("listen.root", "open /srv/q7Zk: no such file", "")
	assert.Equal(t, "open /srv/${SITE}: no such file, where ${SITE} is \"q7Zk\"", problem.Message)
	text = strings.Replace(text, "SITE", "SITE_TOKEN", 1)
	reading, err = Read("atlas.toml", []byte(text), environment(map[string]string{"SITE_TOKEN": "q7Zk"}))
	require.NoError(t, err)
	problem = reading.Revealing().Problem("listen.root", "open /srv/q7Zk: no such file", "")
	assert.Equal(t, "open /srv/${SITE_TOKEN}: no such file", problem.Message)
}
