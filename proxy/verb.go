package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"atlas/proxy/config"
)

// A verb is a command: one thing that atlas does on request.
type verb struct {
	name  string // empty: what atlas does where no command is named
	args  string // what follows it, in the words of the usage: "OLD [NEW]"
	short string // one line of the usage
	long  string // what `atlas help NAME` says below that line; may be empty
	flags []flag
	run   func(*call) int // returns the exit status
}

// A flag may stand anywhere behind its command, with one dash or two.
type flag struct {
	name  string // without dashes
	value string // the word for what it takes, as --name=value; empty: it takes nothing
	short string // one line
}

// A call is a command with what the command line said to it.
type call struct {
	command *verb
	args    []string
	flags   map[string]string // by name; "" for one that takes nothing

	// brief says that the problem has all that there is to say, and needs no usage.
	brief bool

	stdout, stderr io.Writer
}

// has reports that a flag was given.
func (c *call) has(flag string) bool {
	_, given := c.flags[flag]
	return given
}

// arg is the argument of a number, or "" where there are fewer.
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// understand says what the command line asks for, or what is wrong with it. The
// command of the call is set in any case.
func understand(args []string) (c *call, problem string) {
	c = &call{flags: make(map[string]string)}
	c.command, args = chosen(args)
	return c, c.read(args)
}

// read takes the flags and the arguments.
func (c *call) read(args []string) (problem string) {
	for i, arg := range args {
		switch {
		case arg == "--":
			c.args = append(c.args, args[i+1:]...)
			return c.misfit()
		case len(arg) < 2 || arg[0] != '-':
			c.args = append(c.args, arg)
		case c.fileFlag(arg):
			_, file, _ := strings.Cut(arg, "=")
			if file == "" {
				file = strings.Join(args[i+1:min(len(args), i+2)], "")
			}
			return c.spared(fmt.Sprintf("unknown flag %q", arg), file)
		default:
			if problem := c.take(arg); problem != "" || c.has("help") {
				return problem
			}
		}
	}
	return c.misfit()
}

// fileFlags are how other servers are told of their configuration, and starts how
// they are told to run.
var (
	fileFlags = []string{"c", "config", "conf", "f", "file"}
	starts    = []string{"run", "start", "serve"}
)

// fileFlag reports a flag that stands in front of the configuration, elsewhere.
func (c *call) fileFlag(arg string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	return c.command.args == "[CONFIG]" && slices.Contains(fileFlags, name)
}

// spared says what to type instead.
func (c *call) spared(problem, file string) string {
	c.brief = true
	return fmt.Sprintf("%s: type %s", problem,
		strings.Join(strings.Fields("atlas "+c.command.name+" "+cmp.Or(file, "CONFIG")), " "))
}

// chosen takes the name of the command off the arguments.
func chosen(args []string) (*verb, []string) {
	all := commands()
	if len(args) > 0 {
		name := args[0]
		if slices.Contains([]string{"-version", "--version", "-v"}, name) {
			name = "version"
		}
		for i := range all {
			if all[i].name == name && name != "" {
				return &all[i], args[1:]
			}
		}
	}
	return &all[0], args
}

// take notes one flag.
func (c *call) take(arg string) (problem string) {
	name, value, valued := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	if name == "h" || name == "help" {
		c.flags["help"] = ""
		return ""
	}
	var names []string
	for _, f := range c.command.flags {
		names = append(names, f.name)
		switch {
		case f.name != name:
		case valued && f.value == "":
			return fmt.Sprintf("--%s takes no value", name)
		case value == "" && f.value != "":
			return fmt.Sprintf("--%s takes a value: --%s=%s", name, name, f.value)
		default:
			c.flags[name] = value
			return ""
		}
	}
	problem = fmt.Sprintf("unknown flag %q", arg)
	if near := config.Nearest(name, names); near != "" {
		problem += fmt.Sprintf(": did you mean --%s?", near)
	}
	return problem
}

// misfit says what is wrong with the number of arguments.
func (c *call) misfit() string {
	words := strings.Fields(c.command.args)
	least := 0
	for _, word := range words {
		if !strings.HasPrefix(word, "[") {
			least++
		}
	}
	switch most := len(words); {
	case slices.Contains(c.args, "") && c.command.args == "[CONFIG]":
		return "the name of the configuration is empty"
	case len(c.args) == 2 && c.command.name == "" && slices.Contains(starts, c.args[0]):
		return c.spared(fmt.Sprintf("unknown command %q", c.args[0]), c.args[1])
	case len(c.args) > most && c.command.name == "" && bareWord(c.args[0]):
		return fmt.Sprintf("unknown command %q%s", c.args[0], meant(c.args[0]))
	case len(c.args) > most && c.command.args == "[CONFIG]":
		return fmt.Sprintf("one configuration at a time, not also %q", c.args[most])
	case len(c.args) > most && most == 0:
		return fmt.Sprintf("%s takes no argument: what is %q?", c.command.name, c.args[0])
	case len(c.args) > most:
		return fmt.Sprintf("%s takes %s: what is %q?", c.command.name, c.command.args, c.args[most])
	case len(c.args) < least:
		return fmt.Sprintf("%s takes %s", c.command.name, c.command.args)
	}
	return ""
}

// meant asks whether a word was one of the commands.
func meant(word string) string {
	if slices.Contains(starts, word) {
		return ": type atlas CONFIG"
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	if near := config.Nearest(word, names[1:]); near != "" {
		return fmt.Sprintf(": did you mean atlas %s?", near)
	}
	return ""
}

// bareWord reports that a name could be meant as a command: it has neither an
// extension nor a folder.
func bareWord(name string) bool { return !strings.ContainsAny(name, "./") }
