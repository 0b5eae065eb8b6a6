package reference

import (
	"fmt"
	"strings"

	"atlas/proxy/config"
)

// textColumns is how wide help may be.
const textColumns = 80

// Help is what is to be said of a key or a table, such as "listen.tls.cert" or
// "listen". Brackets around the name do not count. Of a name that is none, meant is
// the nearest one, or "".
func Help(topic string) (text, meant string, known bool) {
	topic = strings.Trim(topic, "[]")
	var names []string
	tables := config.Tables()
	for i := range tables {
		t := &tables[i]
		if t.Path == topic {
			return tableHelp(t, tables), "", true
		}
		names = append(names, t.Path)
		for _, k := range keysOf(t) {
			if k.Path == topic {
				return keyHelp(&k, t), "", true
			}
			names = append(names, k.Path)
		}
	}
	if paths := named(topic, tables); len(paths) > 0 {
		return listHelp(topic, paths), "", true
	}
	return "", config.Nearest(topic, names), false
}

// named are the tables and keys that end in a name without its table, or in part of
// it; where there is none, the tables with that word in their name.
func named(name string, tables []config.Table) (paths []string) {
	var loose []string
	for i := range tables {
		path := tables[i].Path
		last := path[strings.LastIndexByte(path, '.')+1:]
		switch {
		case strings.HasSuffix(path, "."+name):
			paths = append(paths, path)
		case strings.HasPrefix(last, name+"_"), strings.HasSuffix(last, "_"+name):
			loose = append(loose, path)
		}
	}
	for _, k := range config.Keys() {
		if strings.HasSuffix(k.Path, "."+name) {
			paths = append(paths, k.Path)
		}
	}
	if len(paths) == 0 {
		return loose
	}
	return paths
}

// listHelp names what a word could mean, or shows the only one.
func listHelp(name string, paths []string) string {
	if len(paths) == 1 {
		text, _, _ := Help(paths[0])
		return text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s is in several places:\n\n", name)
	for _, path := range paths {
		fmt.Fprintf(&b, "  atlas help %s\n", path)
	}
	return b.String()
}

func keyHelp(k *config.Key, t *config.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s\n\n%s\n\n", k.Name(), header(t), wrap(k.Doc, "  "))
	for _, row := range [][2]string{
		{"Takes", takes(k)}, {"Default", standard(k)}, {"Modes", used(k)}, {"A change", reloads(k.Reload)},
	} {
		fmt.Fprintf(&b, "  %-10s%s\n", row[0], strings.TrimLeft(wrap(row[1], strings.Repeat(" ", 12)), " "))
	}
	fmt.Fprintf(&b, "\nExample\n\n%s\n", indent(keyExample(k, t)))
	fmt.Fprintf(&b, "\nSee also: atlas help %s\n", t.Path)
	return b.String()
}

// keyExample is the table's example where that has the key, else the key alone.
func keyExample(k *config.Key, t *config.Table) string {
	if strings.Contains(t.Example, "\n"+k.Name()+" = ") {
		return t.Example
	}
	return header(t) + "\n" + k.Example()
}

func tableHelp(t *config.Table, tables []config.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\nKeys\n\n", header(t), wrap(t.Doc, "  "))
	keys := keysOf(t)
	wide := 0
	for i := range keys {
		wide = max(wide, len(keys[i].Name()))
	}
	for i := range keys {
		text := wrap(keys[i].Doc, strings.Repeat(" ", wide+4))
		fmt.Fprintf(&b, "  %-*s  %s\n", wide, keys[i].Name(), strings.TrimLeft(text, " "))
	}
	fmt.Fprintf(&b, "\nExample\n\n%s\n\nSee also: atlas help %s.%s\n", indent(t.Example), t.Path, keys[0].Name())
	for i := range tables {
		if strings.HasPrefix(tables[i].Path, t.Path+".") {
			fmt.Fprintf(&b, "          atlas help %s\n", tables[i].Path)
		}
	}
	return b.String()
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// wrap breaks text into lines behind a margin.
func wrap(text, margin string) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			b.WriteString(margin)
			column = len(margin)
		case column+1+len(word) > textColumns:
			b.WriteString("\n" + margin)
			column = len(margin)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
