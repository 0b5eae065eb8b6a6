package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"atlas/proxy/accesslog"
	"atlas/proxy/config"
	"atlas/proxy/reference"
)

func helpCommand() verb {
	return verb{
		name: "help", args: "[TOPIC]", short: "print this, or all about a command or a key such as listen.port",
		run: func(c *call) int {
			if len(c.args) == 0 {
				fmt.Fprint(c.stdout, usage())
				return exitOK
			}
			topic := c.args[0]
			all := commands()
			for i := range all[1:] {
				if other := &all[1+i]; other.name == topic {
					fmt.Fprint(c.stdout, other.help())
					return exitOK
				}
			}
			text, near, known := reference.Help(topic)
			if known || loggable(topic) {
				fmt.Fprint(c.stdout, text)
				if !known || slices.Contains(logTopics, topic) {
					fmt.Fprint(c.stdout, variablesHelp())
				}
				return exitOK
			}
			why := meant(topic)
			if why == "" && near != "" {
				why = fmt.Sprintf(": did you mean atlas help %s?", near)
			}
			if why == "" {
				why = ": the tables are " + strings.Join(tableNames(), ", ")
			}
			fmt.Fprintf(c.stderr, "atlas: nothing is known of %q%s\n", topic, why)
			return exitUsage
		},
	}
}

// logTopics are what leads to the variables of the access log.
var logTopics = []string{"access_log", "access_log.format", "format", "variables", "fields"}

// loggable reports that a topic is about what the access log has, but no key.
func loggable(topic string) bool {
	return slices.Contains(logTopics, topic) ||
		slices.ContainsFunc(accesslog.Variables(), func(v accesslog.Variable) bool { return v.Name == topic })
}

// variablesHelp is what a line of the access log may have in it.
func variablesHelp() string {
	var b strings.Builder
	b.WriteString("\nVariables of access_log.format, in braces; JSON has them as its fields\n\n")
	for _, v := range accesslog.Variables() {
		fmt.Fprintf(&b, "  %-13s %s\n", v.Name, v.Doc)
	}
	return b.String()
}

// tableNames are the topics that lead to every key.
func tableNames() []string {
	var names []string
	for _, t := range config.Tables() {
		names = append(names, t.Path)
	}
	return names
}

const schemaLong = `
Prints a JSON Schema (draft 2020-12) of configurations, for editors and other programs:

  atlas schema > atlas.schema.json

With "#:schema ./atlas.schema.json" as the first line of a configuration, editors that
use taplo (Even Better TOML) complete its keys, explain them, and mark what is wrong.
`

func schemaCommand() verb {
	return verb{
		name: "schema", short: "print a JSON Schema of configurations, for editors", long: schemaLong,
		run: func(c *call) int {
			if _, err := c.stdout.Write(reference.Schema()); err != nil {
				return exitRuntime
			}
			return exitOK
		},
	}
}

func versionCommand() verb {
	return verb{
		name: "version", short: "print the version",
		run: func(c *call) int {
			fmt.Fprintf(c.stdout, "atlas %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return exitOK
		},
	}
}

// usage is one screen with every command.
func usage() string {
	var b strings.Builder
	b.WriteString("atlas serves files and forwards HTTP requests and TCP connections to upstreams.\n\n")
	all := commands()
	wide := 0
	for i := range all {
		wide = max(wide, len(all[i].line()))
	}
	for i := range all {
		fmt.Fprintf(&b, "  %-*s   %s\n", wide, all[i].line(), all[i].short)
	}
	b.WriteString(`
SIGTERM and SIGINT let requests in flight end, then exit; a second one exits at once.
Exit status: 0 ended in order, 1 could not run, 2 wrong command line or configuration.
`)
	return b.String()
}

// line is how the command is called.
func (c *verb) line() string {
	return strings.Join(strings.Fields("atlas "+c.name+" "+c.args), " ")
}

// help is all that is to be said of one command. The one without a name is what
// the whole usage is about.
func (c *verb) help() string {
	if c.name == "" || c.name == "help" {
		return usage()
	}
	var b strings.Builder
	line := c.line()
	wide := 0
	for _, f := range c.flags {
		line += " [" + f.line() + "]"
		wide = max(wide, len(f.line()))
	}
	fmt.Fprintf(&b, "%s\n\n%s.\n", line, strings.ToUpper(c.short[:1])+c.short[1:])
	if c.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.long))
	}
	for i, f := range c.flags {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "  %-*s   %s\n", wide, f.line(), f.short)
	}
	return b.String()
}

func (f *flag) line() string {
	if f.value == "" {
		return "--" + f.name
	}
	return "--" + f.name + "=" + f.value
}
