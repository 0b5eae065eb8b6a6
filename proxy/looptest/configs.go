package looptest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// StaticConfig is the text of a configuration that serves a directory with the file a, which says hello.
func StaticConfig(t testing.TB, engine loop.Engine, more ...string) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "a"), []byte("hello"), 0o644))
	return fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nmode = \"static\"\nworkers = 2\npin = false\n"+
		"engine = %q\nroot = %q\n%s\n", engine, root, strings.Join(more, "\n"))
}

// ProxyConfig is the text of one that forwards to upstreams, which are addresses.
func ProxyConfig(engine loop.Engine, upstreams []string, more ...string) string {
	text := fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nworkers = 2\npin = false\nengine = %q\n", engine)
	for i, upstream := range upstreams {
		host, port, _ := net.SplitHostPort(upstream)
		text += fmt.Sprintf("[[upstreams]]\nname = \"up%d\"\naddress = %q\nport = %s\n", i, host, port)
	}
	return text + strings.Join(more, "\n")
}
