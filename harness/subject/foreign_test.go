package subject

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/scenarios"
)

// subjectOf reads a subject file with this text.
func subjectOf(t *testing.T, text string) (Subject, error) {
	file := filepath.Join(t.TempDir(), "mine.toml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	s, err := ReadFile(file)
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""))
	}
	return s, err
}

// A server of a subject file is started, awaited, metered and stopped as any other.
func TestSubjectFile(t *testing.T) {
	l, root := launcher(t)
	mine, err := subjectOf(t, fmt.Sprintf(`
name    = "mine"
kinds   = ["static", "proxy", "tcp"]
tls     = true
command = ["/bin/sh", "{{.Dir}}/start", "-listen", "{{.Address}}",
	"{{if .Proxy}}-upstream{{end}}", "{{if .Proxy}}{{.Origin}}{{end}}",
	"{{if .TCP}}-tunnel{{end}}", "{{if .TCP}}{{.OriginHost}}:{{.OriginPort}}{{end}}",
	"{{with .Root}}-root{{end}}", "{{.Root}}",
	"{{if .Identity}}-cert{{end}}", "{{with .Identity}}{{.Chain}}{{end}}",
	"{{if .Identity}}-key{{end}}", "{{with .Identity}}{{.Key}}{{end}}"]
env     = ["WORKERS={{.Threads}}"]
[files]
start = '''
[ "$WORKERS" = 1 ] || exit 3
exec %s serve-peer "$@"
'''
`, l.Programs.Harness))
	require.NoError(t, err)
	require.NoError(t, mine.Missing(l.Programs))
	require.True(t, mine.Metered())
	require.True(t, mine.Scales(), "it is told how many workers to have")
	identity, err := cert.Make(t.TempDir(), scenarios.ECDSA)
	require.NoError(t, err)
	up, err := l.Start(t.Context(), Origins(false)[1], Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.NoError(t, err)
	for _, site := range sites(root, up.Address, identity) {
		running, err := l.Start(t.Context(), mine, site, host.Allowed()[:1])
		require.NoError(t, err)
		cpu, err := running.Meter.CPU()
		require.NoError(t, err)
		require.Positive(t, cpu)
		require.NoError(t, running.Stop())
		requireSilent(t, running.Address)
	}
	require.NoError(t, up.Stop())

	kept := mine.Foreign()
	require.Contains(t, kept.File, "exec "+l.Programs.Harness)
	require.NotEmpty(t, kept.SHA256)
	require.Equal(t, "/bin/sh", kept.Program)
	require.Nil(t, one(t, "atlas").Foreign())
	other, err := subjectOf(t, `name = "mine"`+"\n"+`kinds = ["static"]`+"\n"+`command = ["true"]`)
	require.NoError(t, err)
	require.NotEqual(t, mine.ConfigHash(), other.ConfigHash())
	require.False(t, other.Scales())
	require.ErrorContains(t, other.Missing(Programs{Compose: &Compose{}}), "as a process of this machine only")
}

func TestSubjectFileRefuses(t *testing.T) {
	const good = "name = \"mine\"\nkinds = [\"static\"]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\n"
	_, err := subjectOf(t, good)
	require.NoError(t, err)
	for _, row := range []struct{ name, text, want string }{
		{"a key that is none", good + "comand = []\n", `mine.toml:4:1: unknown key "comand"`},
		{"another type", "name = \"mine\"\ntls = \"on\"\n", "mine.toml:2:7: "},
		{"no TOML", "name = mine\n", "mine.toml:1:8: "},
		{"no name", "kinds = [\"static\"]\n", `mine.toml: name "": want lower-case words`},
		{"a name for nobody", strings.Replace(good, "mine", "mine-2", 1), `name "mine-2": want lower-case words`},
		{"a name that the lab has", strings.Replace(good, "mine", "nginx-best", 1), `name "nginx-best" is that of a subject`},
		{"the origin's name", strings.Replace(good, "mine", "nginx-origin", 1), `name "nginx-origin" is that of a subject`},
		{"no kinds", "name = \"mine\"\n", "mine.toml: kinds is missing"},
		{"a kind that is none", strings.Replace(good, "static", "statik", 1), `kinds has "statik", want some of ["static" "proxy" "tcp"]`},
		{"no command", "name = \"mine\"\nkinds = [\"static\"]\n", "mine.toml: command is missing"},
		{"a field that is none", strings.Replace(good, "exit 3", "x {{.Prot}}", 1), "mine.toml: template: command:1:4: "},
		{"a template that is none", strings.Replace(good, "exit 3", "{{if}}", 1), "mine.toml: template: command:1: "},
		{"TLS that nobody asked for", strings.Replace(good, "exit 3", "{{.Identity.Key}}", 1), "mine.toml: template: command:1:11: "},
		{"a file elsewhere", good + "[files]\n\"../x\" = \"\"\n", `files has "../x"`},
		{"the log's file", good + "[files]\nlog = \"\"\n", `files has "log"`},
		{"a file's template", good + "[files]\nx = \"a\\nb {{.No}}\"\n", `mine.toml: template: files."x":2:4: `},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := subjectOf(t, row.text)
			require.ErrorContains(t, err, row.want)
		})
	}
	_, err = ReadFile("/no/mine.toml")
	require.ErrorContains(t, err, "/no/mine.toml")

	for command, want := range map[string]string{
		"no-such-server": `command "no-such-server" is not in PATH: install it, or give its path`,
		"/no/server":     `command: exec: "/no/server": `,
	} {
		s, err := subjectOf(t, strings.Replace(good, `"sh"`, fmt.Sprintf("%q", command), 1))
		require.NoError(t, err)
		require.ErrorContains(t, s.Missing(Programs{}), want)
	}
	// What goes to the background ends for those who wait for it.
	s, err := subjectOf(t, strings.Replace(good, "exit 3", "exit 0", 1))
	require.NoError(t, err)
	l, root := launcher(t)
	_, err = l.Start(t.Context(), s, Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.ErrorContains(t, err, "mine: ended before it served anything (exit status 0: it has to stay in the foreground)")
}

// The example of the documents is a subject, whose templates can be rendered.
func TestSubjectFileOfTheDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/lab.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, block)
	s, err := subjectOf(t, string(block[1]))
	require.NoError(t, err)
	require.True(t, s.Serves(scenarios.Proxy))
	require.True(t, s.Scales())
}

// A server that runs already is asked, and metered where its process is known; nobody
// stops it.
func TestURL(t *testing.T) {
	served, status := origin.Document(length), http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(served)
	}))
	defer server.Close()
	site := Site{Kind: scenarios.Static, Path: path, Length: length}

	there, err := AtURL("there=" + server.URL)
	require.NoError(t, err)
	require.NoError(t, there.Missing(Programs{}))
	require.False(t, there.Metered())
	require.Equal(t, server.URL, there.Foreign().URL)
	running, err := Launcher{}.Start(t.Context(), there, site, nil)
	require.NoError(t, err)
	require.Equal(t, server.Listener.Addr().String(), running.Address)
	_, err = running.Meter.CPU()
	require.Error(t, err)
	require.NoError(t, running.Ended())
	require.NoError(t, running.Stop())

	known, err := AtURL(fmt.Sprintf("there=%s/,pid=%d", server.URL, os.Getpid()))
	require.NoError(t, err)
	require.True(t, known.Metered())
	require.Equal(t, os.Getpid(), known.Foreign().PID)
	running, err = Launcher{}.Start(t.Context(), known, site, nil)
	require.NoError(t, err)
	cpu, err := running.Meter.CPU()
	require.NoError(t, err)
	require.Positive(t, cpu)
	require.NoError(t, running.Stop())

	gone, err := AtURL("there=" + server.URL + ",pid=999999999")
	require.NoError(t, err)
	_, err = Launcher{}.Start(t.Context(), gone, site, nil)
	require.ErrorContains(t, err, "there: pid=999999999: ")

	for _, row := range []struct {
		name, want string
		spoil      func()
	}{
		{"another status", "status 418", func() { status = http.StatusTeapot }},
		{"another length", "body of 5 bytes, want 1024", func() { status, served = http.StatusOK, []byte("short") }},
		{"other bytes", "body of the right length with other bytes", func() { served = []byte(strings.Repeat("x", length)) }},
		{"nobody there", "start it first, or correct -url there=http://", server.Close},
	} {
		row.spoil()
		_, err := Launcher{}.Start(t.Context(), there, site, nil)
		require.NotContains(t, err.Error(), "there: ", "%s: who measures says whom", row.name)
		require.ErrorContains(t, err, row.want, row.name)
		if row.name != "nobody there" {
			require.ErrorContains(t, err, "harness documents", row.name)
		}
	}
}

func TestURLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:1":             "want lower-case words",
		"atlas=http://127.0.0.1:1":       `name "atlas" is that of a subject`,
		"mine":                           "no URL of a server",
		"mine=https://127.0.0.1:1":       "write a subject file",
		"mine=http:///x":                 "no URL of a server",
		"mine=http://a:1/x":              "more than a host and a port",
		"mine=http://a:1?x":              "more than a host and a port",
		"mine=http://me@a:1":             "more than a host and a port",
		"mine=http://a:x":                "invalid port",
		"mine=http://a:1,pid=no":         `"no" is no process`,
		"mine=http://a:1,pid=0":          `"0" is no process`,
		"mine=http://127.0.0.1:1,pid=-4": `"-4" is no process`,
	} {
		_, err := AtURL(text)
		require.ErrorContains(t, err, "-url "+text+": ")
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "want name=http://host:port")
	}
	s, err := AtURL("mine=http://example")
	require.NoError(t, err)
	require.Equal(t, "example:80", s.foreign.address)
	for _, row := range []struct {
		name string
		of   scenarios.Scenario
		want string
	}{
		{"TLS", scenarios.Scenario{Target: scenarios.Target{Kind: scenarios.Static, TLS: scenarios.ECDSA}}, "no TLS"},
		{"cores of all", scenarios.Scenario{
			Target: scenarios.Target{Kind: scenarios.Proxy}, Shared: scenarios.Shared{Cores: 4}}, "one worker"},
		{"memory", scenarios.Scenario{
			Target: scenarios.Target{Kind: scenarios.Proxy}, Load: scenarios.Traffic{Of: scenarios.Idle}}, "pid=N"},
	} {
		require.ErrorContains(t, s.Declines(&row.of), row.want, row.name)
	}
}
