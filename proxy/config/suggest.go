package config

import (
	"fmt"
	"slices"
	"strings"
)

// unknownKey says what key was probably meant: a near one of this table, or
// the same one of another.
func (r *reader) unknownKey(table string, n *node) {
	var here, there []string
	for i := range r.keys {
		k := &r.keys[i]
		if k.Table() == table {
			here = append(here, k.Name())
		}
		if k.Name() == n.name {
			there = append(there, brackets(k.Table()))
		}
	}
	f := fault{message: fmt.Sprintf("unknown key `%s` in %s", clip(n.name), brackets(table))}
	if table == "" {
		f.message = fmt.Sprintf("unknown key `%s` outside of any table", clip(n.name))
	}
	switch near := Nearest(n.name, here); {
	case near != "":
		f.hint = fmt.Sprintf("did you mean `%s`?", near)
	case len(there) > 0:
		f.hint = "it belongs in " + strings.Join(there, " or ")
	case table == "":
		f.hint = "the tables are " + r.tableList()
	default:
		f.hint = brackets(table) + " has " + strings.Join(here, ", ")
	}
	r.fail(n.key, n.path, f)
}

// unknownTable reports a table once, and not what is in it.
func (r *reader) unknownTable(path string, at span) {
	for i := range len(path) + 1 {
		if (i == len(path) || path[i] == '.') && r.wrong[path[:i]] {
			return
		}
	}
	r.wrong[path] = true
	f := fault{
		message: fmt.Sprintf("unknown table `%s`", clip(path)),
		hint:    "the tables are " + r.tableList(),
	}
	if near := Nearest(path, r.tables); near != "" {
		f.hint = fmt.Sprintf("did you mean %s?", brackets(near))
	}
	r.fail(at, path, f)
}

func (r *reader) tableList() string {
	list := make([]string, len(r.tables))
	for i, t := range r.tables {
		list[i] = brackets(t)
	}
	return strings.Join(list, ", ")
}

// choices names the values of an enumeration, or the one that was meant.
func (k *Key) choices(text string) string {
	if near := Nearest(text, k.Values); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	list := make([]string, len(k.Values))
	for i, v := range k.Values {
		list[i] = fmt.Sprintf("%q", v)
	}
	return "choose one of " + strings.Join(list, ", ")
}

// namesMax bounds the edit distance, which costs the product of both lengths.
const namesMax = 40

// Nearest returns the name that was probably meant, or "". Case and the kind
// of dash do not count; otherwise a third of the letters may be wrong,
// but not all.
func Nearest(word string, names []string) string {
	if len(word) > namesMax {
		return ""
	}
	word = strings.ReplaceAll(strings.ToLower(word), "-", "_")
	best, least := "", min(max(1, len(word)/3), len(word)-1)+1
	for _, name := range names {
		if d := distance(word, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to insert, drop, change, or swap with their
// neighbour to make b out of a.
func distance(a, b string) int {
	// Three rows of the usual table: two back is what a swap needs.
	older := make([]int, len(b)+1)
	old := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(b)]
}

func contains(values []string, v string) bool { return slices.Contains(values, v) }

// clip cuts a name for a message.
func clip(name string) string {
	if runes := []rune(name); len(runes) > namesMax {
		return string(runes[:namesMax]) + "..."
	}
	return name
}
