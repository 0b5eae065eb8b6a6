package admin

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/server"
)

// follow has the server follow a file from now on, under an environment.
func (r *rig) follow(file string, environment map[string]string) {
	r.Helper()
	r.server.Config().File = file // nobody else looks yet
	require.NoError(r, r.server.Follow(func(text []byte) (*config.Reading, error) {
		return config.Read(file, text, func(name string) (string, bool) {
			value, known := environment[name]
			return value, known
		})
	}, r.Prepare))
}

// The listener goes where the configuration says, also by a reload that comes by the
// listener itself, and stays where another one is not to be had.
func TestReloadOfAddress(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "atlas.toml"), filepath.Join(dir, "admin.sock")
	write := func(table string) {
		require.NoError(t, os.WriteFile(file, []byte(looptest.StaticConfig(t, loop.Netpoll, table)), 0o644))
	}
	unix := fmt.Sprintf("[admin]\naddress = \"unix:%s\"\n", socket)
	write(unix)
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll, unix))
	r.follow(file, nil)
	reload := func() reply { return bare(r.ask("POST", "/reload", "")) }

	write("[admin]\naddress = \"127.0.0.1:0\"\n")
	assert.Equal(t, reply{200, nil, "reloaded\n"}, reload())
	assert.True(t, strings.HasPrefix(r.Addr(), "127.0.0.1:"), r.Addr())
	assert.Equal(t, "ready\n", r.get("/readyz").Text)
	r.eventually("the old one to be gone", func() bool { _, err := os.Lstat(socket); return err != nil })

	write("[admin]\naddress = \"127.0.0.1:0\"\nhost = \"atlas.test\"\n")
	before := r.Addr()
	assert.Equal(t, 403, r.ask("GET", "/readyz", "", "Host", "atlas.test").Status)
	assert.Equal(t, 200, reload().Status)
	assert.Equal(t, before, r.Addr(), "it is the same listener")
	assert.Equal(t, 200, r.ask("GET", "/readyz", "", "Host", "atlas.test").Status)

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	write(fmt.Sprintf("[admin]\naddress = %q\n", taken.Addr()))
	got := reload()
	assert.Equal(t, 422, got.Status)
	assert.Contains(t, got.Text, fmt.Sprintf("%s:10:11: [admin] %s is in use by another program", file, taken.Addr()))
	assert.Equal(t, before, r.Addr())
	require.Len(t, r.status().Config.Errors, 1)
	assert.Contains(t, r.status().Config.Errors[0], file+":10:11: ")

	// The port of now on all addresses, and a Unix socket with other permissions.
	_, port, _ := net.SplitHostPort(before)
	write("[admin]\naddress = \"0.0.0.0:" + port + "\"\nallow_remote = true\n")
	assert.Equal(t, 200, reload().Status)
	assert.Equal(t, "0.0.0.0:"+port, r.Addr())
	for mode, want := range map[string]fs.FileMode{"0600": 0o600, "0660": 0o660} {
		write(unix + fmt.Sprintf("socket_mode = %q\n", mode))
		assert.Equal(t, 200, reload().Status)
		stat, err := os.Stat(socket)
		require.NoError(t, err)
		assert.Equal(t, want|fs.ModeSocket, stat.Mode())
		assert.Equal(t, "ready\n", r.get("/readyz").Text)
	}

	// It goes, and comes.
	write("")
	assert.Equal(t, reply{200, nil, "reloaded\n"}, reload())
	assert.Empty(t, r.Addr())
	r.leaving.Wait()
	assert.NoFileExists(t, socket)
	write(unix)
	require.NoError(t, r.server.Reload("test"))
	assert.Equal(t, "ready\n", r.get("/readyz").Text)
}

// A socket whose name somebody has removed is found again after a reload.
func TestReloadBringsSocketBack(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	text := looptest.StaticConfig(t, loop.Netpoll, fmt.Sprintf("[admin]\naddress = \"unix:%s\"\n", socket))
	r := launch(t, text)
	before := r.desk.Load()
	reload := func() {
		take, _, err := r.Prepare(parse(t, text))
		require.NoError(t, err)
		take()
	}
	reload()
	require.Same(t, before, r.desk.Load(), "it is there")
	require.NoError(t, os.Remove(socket))
	reload()
	require.Equal(t, "ready\n", r.get("/readyz").Text)
	<-before.served
	r.leaving.Wait()
	require.FileExists(t, socket, "the name is not that of the one that has left")
}

// What was prepared for a reload that fails elsewhere leaves nothing behind.
func TestPrepareDropped(t *testing.T) {
	r := prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll)))
	before := r.Addr()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	_, drop, err := r.Prepare(parse(t, looptest.StaticConfig(t, loop.Netpoll,
		fmt.Sprintf("[admin]\naddress = \"unix:%s\"\n", socket))))
	require.NoError(t, err)
	assert.FileExists(t, socket)
	drop()
	assert.NoFileExists(t, socket)
	assert.Equal(t, before, r.Addr())
}

// The configuration is shown as it takes effect, without what the environment gave.
func TestConfig(t *testing.T) {
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	assert.Equal(t, 503, r.get("/config").Status)
	assert.Equal(t, 503, r.get("/config.json").Status)
	file := filepath.Join(t.TempDir(), "atlas.toml")
	text := strings.Replace(looptest.StaticConfig(t, loop.Netpoll), "127.0.0.1", "${HOST}", 1) +
		"\n[admin]\naddress = \"127.0.0.1:0\"\nhost = \"${NAME}\"\n[timeouts]\nidle = \"7s\"\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	r.follow(file, map[string]string{"HOST": "127.0.0.1", "NAME": "secret.example"})

	shown := r.get("/config")
	assert.Equal(t, 200, shown.Status)
	assert.NotContains(t, shown.Text, "secret")
	assert.Regexp(t, `(?m)^idle = "7s" +# .*atlas\.toml:\d+$`, shown.Text)
	assert.Regexp(t, `(?m)^host = "\$\{NAME\}" +# environment NAME, .*atlas\.toml:\d+$`, shown.Text)
	_, err := config.Read("shown.toml", []byte(shown.Text), func(string) (string, bool) { return "::1", true })
	assert.NoError(t, err, "it is a configuration")

	listed := r.get("/config.json")
	assert.Equal(t, "application/json", listed.Header.Get("Content-Type"))
	assert.NotContains(t, listed.Text, "secret")
	var values []ConfigValue
	require.NoError(t, json.Unmarshal([]byte(listed.Text), &values))
	by := make(map[string]ConfigValue)
	for _, v := range values {
		by[v.Key] = v
	}
	assert.Len(t, by, len(values), "each once")
	assert.Equal(t, `"7s"`, string(by["timeouts.idle"].Value))
	assert.Equal(t, "default", by["timeouts.header"].From)
	assert.Equal(t, `2`, string(by["listen.workers"].Value))
	assert.Equal(t, `"${NAME}"`, string(by["admin.host"].Value))
	assert.Equal(t, "null", string(by["listen.handover"].Value))
}

func TestExamine(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("text"), nil, 0o600))
	for address, want := range map[string]string{
		"127.0.0.1:0":               "",
		"localhost:9000":            "",
		"192.0.2.1:9000":            "this machine has no address 192.0.2.1",
		"unix:" + path("new"):       "",
		"unix:" + path("text"):      "text is a file, and no socket",
		"unix:" + path("no/a.sock"): "no/a.sock: no such file or directory",
	} {
		found := Examine(&config.Admin{Address: address})
		if want == "" {
			assert.Empty(t, found, address)
			continue
		}
		if assert.Len(t, found, 1, address) {
			assert.Contains(t, found[0].Message, want)
			assert.Equal(t, server.Finding{Key: "admin.address", Message: found[0].Message, Hint: found[0].Hint}, found[0])
		}
	}
	open := config.Admin{Address: "0.0.0.0:9000"}
	found := Examine(&open)
	require.Len(t, found, 1)
	assert.True(t, found[0].Warning)
	assert.Contains(t, found[0].Message, "can be reached by others")
	open.AllowRemote = true
	assert.Empty(t, Examine(&open))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left behind")
}
