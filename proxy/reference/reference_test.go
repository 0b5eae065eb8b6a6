package reference

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md and testdata")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "make it with: make golden")
	assert.Equal(t, string(want), got, "%s is not what the tables say: make golden", file)
}

// The page in the repository is what the tables say, and has every key and every
// table.
func TestPage(t *testing.T) {
	golden(t, "../../docs/configuration.md", Page())
	tables := config.Tables()
	for i := range tables {
		table := &tables[i]
		_, section, found := strings.Cut(Page(), "\n## "+header(table)+"\n")
		require.True(t, found, "no section for %s", table.Path)
		section, _, _ = strings.Cut(section, "\n## ")
		assert.Contains(t, section, table.Doc)
		for _, k := range keysOf(table) {
			assert.Contains(t, section, "| `"+k.Name()+"` | ", "%s is missing", k.Path)
		}
	}
}

// Every table says what it is for, and shows it in an example that is read.
func TestTables(t *testing.T) {
	base := map[string]string{
		"listen":        "[listen]\nport = 8080\n",
		"listen.tls":    "[listen.tls]\ncert = \"c\"\nkey = \"k\"\n",
		"upstreams":     "[[upstreams]]\nname = \"a\"\naddress = \"::1\"\nport = 1\n",
		"upstreams.tls": "",
	}
	tables := config.Tables()
	for i := range tables {
		table := &tables[i]
		t.Run(table.Path, func(t *testing.T) {
			require.NotEmpty(t, table.Doc, "give it a line in describe, proxy/config/tables.go")
			require.True(t, strings.HasPrefix(table.Example, header(table)+"\n"), "its example begins with its header")
			text := ""
			for _, other := range []string{"listen", "listen.tls", "upstreams"} {
				own := other == table.Path
				below := strings.HasPrefix(table.Path, other+".")
				if !own && (other != "listen.tls" || below) {
					text += base[other]
				}
			}
			if table.Path == "upstreams" || table.Path == "listen" {
				text = table.Example + "\n" + text
			} else {
				text += table.Example + "\n"
			}
			_, _, err := config.Parse("example.toml", []byte(text))
			assert.NoError(t, err, text)
		})
	}
}

func TestHelp(t *testing.T) {
	for _, k := range config.Keys() {
		text, _, known := Help(k.Path)
		require.True(t, known, k.Path)
		assert.Contains(t, strings.Join(strings.Fields(text), " "), k.Doc)
		assert.Contains(t, text, string(k.Reload), k.Path)
		for line := range strings.Lines(text) {
			assert.LessOrEqual(t, len(line), textColumns+11, line)
		}
		text, _, known = Help(k.Table())
		require.True(t, known, k.Table())
		assert.Contains(t, text, "\n  "+k.Name()+" ", "the help of %s names it", k.Table())
	}
	for _, row := range []struct{ topic, meant, part string }{
		{"listen.tls.cert", "", "cert in [listen.tls]"},
		{"[[upstreams]]", "", "[[upstreams]]\n"},
		{"max_connections", "", "max_connections in [[upstreams]]"},
		{"health_check.path", "", "path in [upstreams.health_check]"},
		{"queue", "", "queue is in several places:\n\n  atlas help routing.queue\n  atlas help timeouts.queue\n"},
		{"tls", "", "tls is in several places:\n\n  atlas help listen.tls\n  atlas help upstreams.tls\n"},
		{"health_check", "", "[upstreams.health_check]\n"},
		{"static", "", "[static_files]\n"},
		{"log", "", "[access_log]\n"},
		{"listen.tls.crt", "listen.tls.cert", ""},
		{"upstreans", "upstreams", ""},
		{"nothing like it", "", ""},
	} {
		text, meant, known := Help(row.topic)
		assert.Equal(t, row.meant, meant, row.topic)
		assert.Equal(t, row.part != "", known, row.topic)
		assert.Contains(t, text, row.part)
	}
	for _, topic := range []string{"listen.port", "listen.tls", "timeouts.tunnel", "listen.root"} {
		text, _, _ := Help(topic)
		golden(t, "testdata/help-"+topic+".golden", text)
	}
}

// validator is a compiled Schema.
func validator(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("atlas.schema.json", document))
	schema, err := compiler.Compile("atlas.schema.json")
	require.NoError(t, err)
	return schema
}

// instance is a configuration the way a validator sees it.
func instance(t *testing.T, text []byte) any {
	t.Helper()
	var tables map[string]any
	require.NoError(t, toml.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &tables))
	encoded, err := json.Marshal(tables)
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(encoded))
	require.NoError(t, err)
	return v
}

// What Atlas takes, the schema takes: the sample of the README, every configuration
// of the tests, and what check --print makes of them.
func TestSchemaAccepts(t *testing.T) {
	schema := validator(t)
	seen := 0
	for _, pattern := range []string{
		"../config/testdata/*.toml", "../../docs/examples/*.toml", "../../examples/*.toml", "../../examples/*/*.toml",
		"../../deploy/*.toml",
	} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			reading, err := config.Read(file, text, nil)
			if err != nil {
				continue
			}
			seen++
			assert.NoError(t, schema.Validate(instance(t, text)), file)
			assert.NoError(t, schema.Validate(instance(t, []byte(reading.Print()))), "%s, printed", file)
		}
	}
	assert.Greater(t, seen, 10)
	assert.NoError(t, schema.Validate(instance(t, []byte(`
listen = {port = "${PORT:-80}", mode = "${MODE}", pin = "${PIN}", address = "${HOST}"}
timeouts.idle = "${IDLE}s"
limits.body_bytes = "${BODY}"
[[upstreams]]
name = "a"
address = "${APP}"
`))))
}

func TestSchemaRefuses(t *testing.T) {
	schema := validator(t)
	const good = "listen = {port = 80}\nupstreams = [{name = \"a\", address = \"::1\", port = 1}]\n"
	require.NoError(t, schema.Validate(instance(t, []byte(good))))
	for _, row := range []struct{ name, text string }{
		{"nothing", ""},
		{"no port", "listen = {}\nupstreams = [{name = \"a\", address = \"::1\", port = 1}]"},
		{"no upstreams", "listen.port = 1"},
		{"no root", "listen = {port = 1, mode = \"static\"}"},
		{"an unknown table", good + "liste = {}"},
		{"an unknown key", good + "timeouts.idel = \"1s\""},
		{"a port as a string", strings.Replace(good, "80", `"80"`, 1)},
		{"a port that is too large", strings.Replace(good, "80", "65536", 1)},
		{"a mode that is none", strings.Replace(good, "80", `80, mode = "htpp"`, 1)},
		{"a boolean that is none", strings.Replace(good, "80", `80, pin = "yes"`, 1)},
		{"a duration without a unit", good + "timeouts.idle = \"10\""},
		{"a number as a duration", good + "timeouts.idle = 10"},
		{"bytes with half a unit", good + "limits.body_bytes = \"10M\""},
		{"bytes below zero", good + "limits.body_bytes = -1"},
		{"a list that is none", good + "routing.trusted_proxies = \"::1\""},
		{"an upstream without a port", strings.Replace(good, ", port = 1}", "}", 1)},
		{"an upstream without a name", strings.Replace(good, "name = \"a\", ", "", 1)},
		{"one upstream", "listen = {port = 80}\nupstreams = {name = \"a\", address = \"::1\", port = 1}"},
		{"half a certificate", strings.Replace(good, "80", `80, tls = {cert = "c"}`, 1)},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Error(t, schema.Validate(instance(t, []byte(row.text))))
			_, _, err := config.Parse("wrong.toml", []byte(row.text))
			assert.Error(t, err, "Atlas takes what its schema refuses")
		})
	}
}

// Every key is in the schema, where it is in a file.
func TestSchemaKeys(t *testing.T) {
	var root map[string]any
	require.NoError(t, json.Unmarshal(Schema(), &root))
	for _, k := range config.Keys() {
		at := root
		for name := range strings.SplitSeq(k.Path, ".") {
			if items, repeated := at["items"]; repeated {
				at = items.(map[string]any)
			}
			properties, _ := at["properties"].(map[string]any)
			next, found := properties[name].(map[string]any)
			require.True(t, found, "%s is missing", k.Path)
			at = next
		}
		assert.Contains(t, fmt.Sprint(at["description"]), k.Doc)
	}
}
