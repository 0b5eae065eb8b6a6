package static

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// db.json of https://github.com/jshttp/mime-db, and its version, to make
// mime.types from:
//
//	go test ./proxy/static -run TestTypesTable -mime-db db.json -mime-db-version 1.54.0
var (
	mimeDB        = flag.String("mime-db", "", "db.json of mime-db: rewrite mime.types from it")
	mimeDBVersion = flag.String("mime-db-version", "", "its version")
)

const typesHead = `# What a file is, by its extension. Made from mime-db %s by types_test.go; do not edit.
# Where several types claim an extension, the one that the package mime-types would take.
#
# mime-db is Copyright (c) 2014 Jonathan Ong, Copyright (c) 2015-2022 Douglas Christopher Wilson, under the MIT
# License: https://github.com/jshttp/mime-db/blob/master/LICENSE
`

// mimeType is one entry of db.json.
type mimeType struct {
	Source     string
	Extensions []string
}

// score is that of https://github.com/jshttp/mime-score: standard before vendors'
// and experimental types, IANA before the others, then more specific ones.
func (m mimeType) score(name string) float64 {
	first, second, _ := strings.Cut(name, "/")
	score := 900.0
	for prefix, facet := range map[string]float64{"prs.": 100, "x-": 200, "x.": 300, "vnd.": 400} {
		if strings.HasPrefix(second, prefix) {
			score = facet
		}
	}
	bySource := map[string]float64{"nginx": 10, "apache": 20, "iana": 40}
	if points, ok := bySource[m.Source]; ok {
		score += points
	} else {
		score += 30
	}
	score += map[string]float64{"application": 1, "font": 2, "audio": 2, "video": 3}[first]
	return score + 1 - float64(len(name))/100
}

func makeTypes(t *testing.T) string {
	text, err := os.ReadFile(*mimeDB)
	require.NoError(t, err)
	var db map[string]mimeType
	require.NoError(t, json.Unmarshal(text, &db))
	best := make(map[string]string) // by extension
	for _, name := range slices.Sorted(maps.Keys(db)) {
		m := db[name]
		for _, extension := range m.Extensions {
			if old := best[extension]; old == "" || m.score(name) > db[old].score(old) {
				best[extension] = name
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, typesHead, *mimeDBVersion)
	for _, name := range slices.Sorted(maps.Keys(db)) {
		var own []string
		for _, extension := range db[name].Extensions {
			if best[extension] == name {
				own = append(own, extension)
			}
		}
		if len(own) > 0 {
			fmt.Fprintln(&out, name, strings.Join(own, " "))
		}
	}
	return out.String()
}

func TestTypesTable(t *testing.T) {
	if *mimeDB != "" {
		require.NoError(t, os.WriteFile("mime.types", []byte(makeTypes(t)), 0o644))
		return
	}
	assert.Greater(t, len(types), 1000)
	seen := make(map[string]bool)
	for line := range strings.Lines(mimeTypes) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		assert.Regexp(t, `^[a-z-]+/[a-z0-9.+_-]+$`, words[0])
		assert.Greater(t, len(words), 1, line)
		for _, extension := range words[1:] {
			assert.Regexp(t, `^[a-z0-9_-]+$`, extension)
			assert.False(t, seen[extension], "%s has two types", extension)
			seen[extension] = true
		}
	}
}

func TestTypeOf(t *testing.T) {
	for file, want := range map[string]string{
		"a.html": "text/html; charset=utf-8", "a.HTML": "text/html; charset=utf-8", "a.htm": "text/html; charset=utf-8",
		"a.css": "text/css; charset=utf-8", "a.txt": "text/plain; charset=utf-8", "a.log": "text/plain; charset=utf-8",
		"a.js": "text/javascript; charset=utf-8", "a.mjs": "text/javascript; charset=utf-8",
		"a.csv": "text/csv; charset=utf-8", "a.md": "text/markdown; charset=utf-8", "a.ics": "text/calendar; charset=utf-8",
		"a.json": "application/json", "a.map": "application/json", "a.webmanifest": "application/manifest+json",
		"a.xml": "application/xml", "a.xhtml": "application/xhtml+xml", "a.rss": "application/rss+xml",
		"a.svg": "image/svg+xml", "b.a/c.png": "image/png", "a.jpg": "image/jpeg", "a.jpeg": "image/jpeg", "a.gif": "image/gif",
		"a.webp": "image/webp", "a.avif": "image/avif", "a.jxl": "image/jxl", "a.ico": "image/vnd.microsoft.icon",
		"a.woff": "font/woff", "a.woff2": "font/woff2", "a.ttf": "font/ttf", "a.otf": "font/otf",
		"a.mp4": "video/mp4", "a.webm": "video/webm", "a.mp3": "audio/mpeg", "a.m4a": "audio/mp4", "a.ogg": "audio/ogg",
		"a.wav": "audio/wav", "a.m3u8": "application/vnd.apple.mpegurl", "a.ts": "video/mp2t",
		"a.wasm": "application/wasm", "a.tar.pdf": "application/pdf", "a.zip": "application/zip", "a.tar.gz": "application/gzip",
		"none": unknownType, "a.png/none": unknownType, "a.": unknownType, "a.nobody-has": unknownType, "": unknownType,
	} {
		assert.Equal(t, want, typeOf(file), file)
	}
}
