package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Lookup finds a variable of the environment. This package has no other way to
// it, so that a text always reads the same under the same Lookup.
type Lookup func(name string) (value string, set bool)

// expand replaces the variables in a string of the file, ${NAME} and
// ${NAME:-default}; the default is for a variable that is unset or empty. $$ is a
// dollar sign, and one alone is refused: what a shell would replace and we do not
// is better told than found out. On a fault, which is about the piece of the file
// at, the literal is as it was.
func (r *reader) expand(v literal) (_ literal, f *fault, at span) {
	v.written = v.text
	if v.kind != unstable.String || !strings.Contains(v.text, "$") {
		return v, nil, v.at
	}
	var b strings.Builder
	rest := v.text
	for {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			break
		}
		if end, escaped := strings.CutPrefix(after, "$"); escaped {
			b.WriteByte('$')
			rest = end
			continue
		}
		inner, end, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		if !strings.HasPrefix(after, "{") || !closed {
			f = &fault{"a dollar sign begins no variable here",
				"write ${NAME}, ${NAME:-default}, or $$ for a dollar sign"}
			return v, f, r.within(v.at, "$"+after)
		}
		value, f := v.variable(inner, r.lookup)
		if f != nil {
			return v, f, r.within(v.at, "${"+inner+"}")
		}
		v.single = v.written == "${"+inner+"}"
		b.WriteString(value)
		rest = end
	}
	v.text = b.String()
	return v, nil, v.at
}

// variable is what stands for the inside of ${...}.
func (v *literal) variable(inner string, lookup Lookup) (string, *fault) {
	name, instead, optional := strings.Cut(inner, ":-")
	switch {
	case !variableName(name):
		return "", &fault{fmt.Sprintf("%s is no name of a variable", quoted(name)), "write ${NAME} or ${NAME:-default}"}
	case strings.Contains(instead, "$"):
		return "", &fault{"a default has no variable in it", "write it as ${NAME:-default}"}
	}
	value, set := "", false
	if lookup != nil {
		value, set = lookup(name)
	}
	if optional && value == "" {
		return instead, nil
	}
	if !set {
		return "", &fault{fmt.Sprintf("the variable %s is not set", clip(name)),
			fmt.Sprintf("set it in the environment, or write ${%s:-default}", clip(name))}
	}
	v.variables = append(v.variables, name)
	v.secrets = append(v.secrets, value)
	return value, nil
}

// variableName follows POSIX.
func variableName(name string) bool {
	return name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == "" &&
		(name[0] < '0' || name[0] > '9')
}

// within finds a part of a string in the file, where it stands as it is.
func (r *reader) within(whole span, part string) span {
	i := bytes.Index(r.doc.text[whole.start:whole.end], []byte(part))
	if i < 0 {
		return whole
	}
	return span{whole.start + i, min(whole.start+i+len(part), whole.end)}
}

// hide takes out of a fault what came from the environment: it may be a secret,
// and messages end up in logs and tickets.
func (v *literal) hide(k *Key, f fault) fault {
	if len(v.variables) == 0 {
		return f
	}
	f.message = strings.ReplaceAll(f.message, quoted(v.text), quoted(v.written))
	if rest, first := strings.CutPrefix(f.message, v.text+" "); first {
		f.message = v.written + " " + rest
	}
	for _, secret := range v.secrets {
		if secret != "" && strings.Contains(f.message, secret) {
			f.message = fmt.Sprintf("`%s` does not take %s", k.Name(), quoted(v.written))
		}
	}
	// A hint may be made of the value, as the nearest name is.
	f.hint = fmt.Sprintf("the value of %s is not shown; one is written like %s",
		strings.Join(v.variables, " and "), k.Example())
	return f
}

// hidden returns text without the values that a key has from the environment.
func (v *literal) hidden(text string) string {
	for i, secret := range v.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "${"+v.variables[i]+"}")
		}
	}
	for i := range v.list {
		text = v.list[i].hidden(text)
	}
	return text
}

// secretWords are in the names of variables whose values no log has.
var secretWords = []string{"SECRET", "PASS", "TOKEN", "CREDENTIAL", "AUTH", "PRIVATE"}

// revealed says what the variables of a value stand for.
func (v *literal) revealed() (text string) {
	for i, name := range v.variables {
		secret := func(word string) bool { return strings.Contains(strings.ToUpper(name), word) }
		if !slices.ContainsFunc(secretWords, secret) {
			text += fmt.Sprintf(", where ${%s} is %s", name, quoted(v.secrets[i]))
		}
	}
	for i := range v.list {
		text += v.list[i].revealed()
	}
	return text
}

// shown quotes the value of a key for a message, the way it stands in the file.
func (r *reader) shown(path, value string) string {
	if v := r.values[path]; len(v.variables) > 0 {
		return quoted(v.written)
	}
	return quoted(value)
}
