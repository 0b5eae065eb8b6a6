package reference

import (
	_ "embed" // of the introduction
	"fmt"
	"strings"

	"atlas/proxy/config"
)

//go:embed introduction.md
var introduction string

// Page is docs/configuration.md.
func Page() string {
	var b strings.Builder
	b.WriteString(introduction)
	for _, r := range []config.Reload{config.Live, config.NewConnections, config.NeedsUpgrade} {
		_, meaning, _ := strings.Cut(reloads(r), ": ")
		fmt.Fprintf(&b, "| %s | %s |\n", r, meaning)
	}
	b.WriteString("\nTables: ")
	tables := config.Tables()
	for i := range tables {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "[%s](#%s)", tables[i].Path, anchor(&tables[i]))
	}
	b.WriteString(".\n")
	for i := range tables {
		writeTable(&b, &tables[i])
	}
	return b.String()
}

// anchor is what GitHub makes of the heading of a table.
func anchor(t *config.Table) string { return strings.ReplaceAll(t.Path, ".", "") }

func writeTable(b *strings.Builder, t *config.Table) {
	fmt.Fprintf(b, "\n## %s\n\n", header(t))
	b.WriteString(t.Doc)
	if t.Repeated {
		b.WriteString(" There may be several.")
	}
	if t.Optional && !t.Repeated {
		b.WriteString(" Off without the table.")
	}
	fmt.Fprintf(b, "\n\n```toml\n%s\n```\n\n", t.Example)
	b.WriteString("| key | what it says | takes | default | modes | a change |\n|---|---|---|---|---|---|\n")
	for _, k := range keysOf(t) {
		cells := []string{"`" + k.Name() + "`", k.Doc, takes(&k), cell(standard(&k), &k), used(&k), string(k.Reload)}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

// cell marks a default that stands in a file like that.
func cell(text string, k *config.Key) string {
	if text == k.Default {
		return "`" + text + "`"
	}
	return text
}
