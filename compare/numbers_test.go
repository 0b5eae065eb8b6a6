package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The figures of our documents are those of the committed runs that they name.
func TestNumbersOfDocuments(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := run(&stdout, &stderr, []string{"numbers", "-check", "../README.md", "../docs/numbers.md"})
	require.Zero(t, status, "%s%s", &stdout, &stderr)
}

func TestNumbers(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.bench"), spec{rounds: 6, subjects: withFloor, slower: 1, quick: true, commit: "aaaaaaa"})
	doc := filepath.Join(dir, "doc.md")
	text := "before\n"
	for _, kind := range []string{"machine", "cost", "published", "tables", "goals"} {
		text += "<!-- numbers " + kind + " a.bench -->\n<!-- /numbers -->\nbetween\n"
	}
	require.NoError(t, os.WriteFile(doc, []byte(text), 0o644))
	numbers := func(args ...string) (string, int) {
		var stdout, stderr bytes.Buffer
		status := run(&stdout, &stderr, append([]string{"numbers"}, append(args, doc)...))
		return stdout.String() + stderr.String(), status
	}
	said, status := numbers("-check")
	require.Equal(t, exitInvalid, status)
	require.Contains(t, said, "doc.md: line 3 is ")
	said, status = numbers()
	require.Zero(t, status)
	require.Contains(t, said, "doc.md: written")
	said, status = numbers("-check")
	require.Zero(t, status)
	require.Contains(t, said, "doc.md: as its runs say")

	whole, err := os.ReadFile(doc)
	require.NoError(t, err)
	require.Equal(t, 5, strings.Count(string(whole), "between\n"), "what is not marked stays")
	figure := regexp.MustCompile(`\| tls-proxy-1k-latency 2000/s \| cpu-ns/req +\| (0\.8\d) \(12\.\d us\) +\|`).FindSubmatch(whole)
	require.NotNil(t, figure)
	require.Contains(t, string(whole), "The same as multiples of floor, ")
	require.Contains(t, string(whole), "| TLS proxy ")
	require.Regexp(t, `(?m)^goals: \d+ met, `, string(whole))
	require.Regexp(t, `(?m)^\| static-1k c=100 +\| cpu-ns/req +\| 1\.6\d \(5\.\d us\) .*\| 1\.00 \(3\.\d us\) +\|$`, string(whole))

	// One figure changed by hand.
	spoilt := strings.Replace(string(whole), string(figure[1])+" (12.", "0.64 (12.", 1)
	require.False(t, string(whole) == spoilt)
	require.NoError(t, os.WriteFile(doc, []byte(spoilt), 0o644))
	said, status = numbers("-check")
	require.Equal(t, exitInvalid, status)
	require.Contains(t, said, "0.64 (12.")

	for _, row := range []struct{ name, text, want string }{
		{"no marks", "nothing\n", "0 parts begin with"},
		{"no end", "<!-- numbers cost a.bench -->\n", "1 parts begin with <!-- numbers KIND FILE -->, 0 of them end"},
		{"no such part", "<!-- numbers costs a.bench -->\n<!-- /numbers -->\n", `no part of a document is named "costs"`},
		{"no such run", "<!-- numbers cost b.bench -->\n<!-- /numbers -->\n", "b.bench: no such file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(doc, []byte(row.text), 0o644))
			said, status := numbers()
			require.Equal(t, exitInvalid, status)
			require.Contains(t, said, row.want)
			left, err := os.ReadFile(doc)
			require.NoError(t, err)
			require.Equal(t, row.text, string(left))
		})
	}
}
