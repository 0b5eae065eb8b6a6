package admin

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/admin.md has every path there is, and none that is not there.
func TestDocs(t *testing.T) {
	source, err := os.ReadFile("routes.go")
	require.NoError(t, err)
	page, err := os.ReadFile("../../docs/admin.md")
	require.NoError(t, err)
	routes := make(map[string]bool)
	for _, found := range regexp.MustCompile(`mux\.Handle(?:Func)?\("(\w+ /[^"]*)"`).FindAllSubmatch(source, -1) {
		routes[string(found[1])] = true
	}
	require.Greater(t, len(routes), 10)
	told := map[string]bool{"GET /": true} // which page.go has
	for _, found := range regexp.MustCompile("(?m)^\\| `(\\w+ /[^`]*)` \\|").FindAllSubmatch(page, -1) {
		told[string(found[1])] = true
		assert.True(t, routes[string(found[1])] || string(found[1]) == "GET /", "there is no %s", found[1])
	}
	for route := range routes {
		if regexp.MustCompile(`^POST /log/level$|^GET /debug/pprof/\w+$`).MatchString(route) {
			continue // said beside others
		}
		assert.True(t, told[route], "%s is not in docs/admin.md", route)
	}
}
