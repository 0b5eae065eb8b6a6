package static

import (
	_ "embed"
	"path"
	"strings"
)

// mimeTypes is generated from the table that jshttp/mime-db maintains out of the
// registrations at IANA and what Apache and nginx know: see its first lines. What
// the system has is not asked for, as answers must not depend on the machine.
//
//go:embed mime.types
var mimeTypes string

// unknownType is of files that the table does not know: a client saves them.
const unknownType = "application/octet-stream"

// types are the Content-Types by extension, in lower case, with its dot.
var types = parseTypes(mimeTypes)

// parseTypes reads lines of a type and its extensions.
func parseTypes(table string) map[string]string {
	byExtension := make(map[string]string, 1500)
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		kind := words[0]
		if strings.HasPrefix(kind, "text/") {
			kind += "; charset=utf-8" // browsers would guess, and each in its own way
		}
		for _, extension := range words[1:] {
			byExtension["."+extension] = kind
		}
	}
	return byExtension
}

// typeOf is the Content-Type of a file by its name.
func typeOf(file string) string {
	if kind := types[strings.ToLower(path.Ext(file))]; kind != "" {
		return kind
	}
	return unknownType
}
