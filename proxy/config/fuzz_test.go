package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"atlas/proxy/balance"
)

// Whatever the text is: a config or errors, never both nor neither; every
// problem has a place in the text; what is printed is safe for a terminal;
// and a config keeps its promises.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(variables))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Every variable that ends in an S is set.
		lookup := func(name string) (string, bool) { return fuzzSecret, strings.HasSuffix(name, "S") }
		reading, err := Read("fuzz.toml", text, lookup)
		if (reading == nil) != (err != nil) {
			t.Fatalf("reading %v and error %v", reading, err)
		}
		var config *Config
		var warnings []Warning
		if reading != nil {
			config, warnings = reading.Config, reading.Warnings
			checkPrint(t, reading, lookup, !bytes.Contains(text, []byte(fuzzSecret)))
		}
		var problems Errors
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("an error of type %T", err)
		}
		for _, w := range warnings {
			problems = append(problems, Error(w))
		}
		lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
		for i := range problems {
			checkProblem(t, &problems[i], lines)
			secret := strings.Contains(problems[i].Error(), fuzzSecret)
			if secret && !bytes.Contains(text, []byte(fuzzSecret)) {
				t.Fatalf("prints what is secret: %s", problems[i].Error())
			}
		}
		if config != nil {
			checkConfig(t, config)
		}
	})
}

// fuzzSecret is nothing that a text or a message has by chance, and good for a
// name, a path and a host.
const fuzzSecret = "q7-Zk3-Xw"

// What is printed says the same again, and nothing secret.
func checkPrint(t *testing.T, reading *Reading, lookup Lookup, hidden bool) {
	printed := reading.Print()
	again, err := Read("fuzz.toml", []byte(printed), lookup)
	if err != nil {
		t.Fatalf("%v in what is printed:\n%s", err, printed)
	}
	if !reflect.DeepEqual(reading.Config, again.Config) {
		t.Fatalf("%+v prints as %+v:\n%s", reading.Config, again.Config, printed)
	}
	if hidden && strings.Contains(printed, fuzzSecret) {
		t.Fatalf("prints what is secret:\n%s", printed)
	}
}

func checkProblem(t *testing.T, e *Error, lines []string) {
	if e.Line < 1 || e.Line > len(lines) {
		t.Fatalf("line %d of %d: %s", e.Line, len(lines), e.Message)
	}
	line := strings.TrimSuffix(lines[e.Line-1], "\r")
	if e.Source != line {
		t.Fatalf("source %q of line %q", e.Source, line)
	}
	if e.Column < 1 || e.Column > utf8.RuneCountInString(line)+1 || e.Width < 1 {
		t.Fatalf("column %d width %d of %q", e.Column, e.Width, line)
	}
	if e.Message == "" {
		t.Fatal("no message")
	}
	for _, r := range e.Error() {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			t.Fatalf("prints %q in %q", r, e.Error())
		}
	}
}

func checkConfig(t *testing.T, c *Config) {
	ok := c.Listen.Port >= 0 && c.Listen.Port <= 65535 && c.Listen.Address != "" &&
		slices.Contains([]Mode{HTTP, TCP, Static}, c.Listen.Mode) &&
		slices.Contains([]Engine{Auto, IOUring, Netpoll}, c.Listen.Engine) &&
		slices.Contains(balance.Strategies(), c.Routing.Strategy) &&
		c.Timeouts.Idle >= timeoutMin && c.Timeouts.Idle <= timeoutMax &&
		c.Limits.HeaderBytes >= headMin && c.StaticFiles.CacheBytes >= 0 &&
		(c.Listen.Mode == Static && c.StaticFiles.Root != "" || len(c.Upstreams) > 0)
	names := make(map[string]bool)
	for _, u := range c.Upstreams {
		port := u.Port > 0 && u.Port <= 65535
		if UnixPath(u.Address) != "" {
			port = u.Port == 0
		}
		if u.HealthCheck != nil {
			ok = ok && u.HealthCheck.Path[0] == '/' && u.HealthCheck.Interval >= timeoutMin && u.HealthCheck.Fall > 0
		}
		ok = ok && port && u.Address != "" && u.Name != "" && !names[u.Name]
		names[u.Name] = true
	}
	if of, name := c.Routing.HashOf(); c.Routing.Strategy == balance.Hash {
		ok = ok && (of == HashPath) == (name == "") && slices.Contains([]string{HashPath, HashHeader, HashCookie}, of)
	}
	if !ok {
		t.Fatalf("a config that should not be: %+v", c)
	}
}
