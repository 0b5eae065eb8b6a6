package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkAll looks at what one key alone cannot tell: what is missing, and what
// contradicts something else.
func (r *reader) checkAll() {
	r.checkTable("listen", "listen")
	if r.config.Listen.TLS != nil {
		r.checkTable("listen.tls", "listen.tls")
	}
	for i := range r.config.Upstreams {
		r.checkTable(repeated, fmt.Sprintf("%s[%d]", repeated, i))
	}
	r.checkNames()
	if !slices.ContainsFunc(r.errs, func(e Error) bool { return e.Key == "listen.mode" }) {
		r.checkMode()
	}
	for i := range r.config.Upstreams {
		u := &r.config.Upstreams[i]
		u.Address = unbracket(u.Address)
	}
	r.config.Listen.Address = unbracket(r.config.Listen.Address)
}

// checkTable reports the required keys that a table does not have. Their place
// is the header of the table, or the start of the file.
func (r *reader) checkTable(table, instance string) {
	for i := range r.keys {
		k := &r.keys[i]
		if !k.Required || k.Table() != table {
			continue
		}
		path := instance + "." + k.Name()
		if _, set := r.seen[path]; !set {
			r.fail(r.seen[instance], path, fault{
				fmt.Sprintf("%s has no `%s`", brackets(table), k.Name()), "add " + k.example()})
		}
	}
}

func (r *reader) checkNames() {
	first := make(map[string]int)
	for i, u := range r.config.Upstreams {
		twin, twice := first[u.Name]
		if !twice || u.Name == "" {
			first[u.Name] = i
			continue
		}
		at := r.seen[fmt.Sprintf("%s[%d].name", repeated, i)]
		there := r.seen[fmt.Sprintf("%s[%d].name", repeated, twin)]
		r.fail(at, fmt.Sprintf("%s[%d].name", repeated, i), fault{
			fmt.Sprintf("two upstreams have the name %s", quoted(u.Name)),
			fmt.Sprintf("the other is on line %d; give each its own", r.doc.problem(there, "", "", "").Line),
		})
	}
}

// checkMode reports what the mode cannot do without.
func (r *reader) checkMode() {
	_, upstreams := r.seen[repeated]
	_, root := r.seen["static_files.root"]
	_, alias := r.seen["listen.root"]
	switch mode := r.config.Listen.Mode; {
	case mode != Static && !upstreams:
		r.fail(span{}, repeated, fault{
			fmt.Sprintf("no upstreams: mode %q needs at least one", mode),
			"add [[upstreams]] with name, address and port"})
	case mode == Static && !root && !alias:
		r.fail(r.seen["static_files"], "static_files.root", fault{
			`mode "static" needs the folder to serve`, `write root = "/var/www/html" in [static_files]`})
	}
}

// unused warns of what the file says and its mode does not use, once for a
// table that is not used at all.
func (r *reader) unused() []Warning {
	mode := r.config.Listen.Mode
	var found Errors
	warn := func(at span, key, message string) {
		found = append(found, *r.doc.problem(at, key, message, ""))
	}
	idle := func(k *Key) bool { return len(k.Modes) > 0 && !slices.Contains(k.Modes, mode) }
	for _, table := range r.tables {
		at, there := r.seen[table]
		used := slices.ContainsFunc(r.keys, func(k Key) bool { return k.Table() == table && !idle(&k) })
		if there && !used {
			warn(at, table, fmt.Sprintf("mode %q does not use %s", mode, brackets(table)))
		}
		if there && !used || table == repeated {
			continue
		}
		for i := range r.keys {
			k := &r.keys[i]
			if at, set := r.seen[k.Path]; set && k.Table() == table && idle(k) {
				warn(at, k.Path, fmt.Sprintf("mode %q does not use `%s`", mode, k.Name()))
			}
		}
	}
	weighted := slices.ContainsFunc(r.config.Upstreams, func(u Upstream) bool { return u.Weight > 0 })
	if mode != Static && !weighted {
		warn(r.seen[repeated], repeated, "every upstream has weight 0: no request can be served")
	}
	r.errs = found
	var warnings []Warning
	for _, e := range r.sorted() {
		warnings = append(warnings, Warning(e))
	}
	return warnings
}

// checkAddress accepts an IP address, in brackets or not, or a host name.
func checkAddress(text string) *fault {
	if _, err := netip.ParseAddr(unbracket(text)); err == nil {
		return nil
	}
	switch {
	case text == "":
		return &fault{"the address is empty", `write an IP address or a host name, such as "127.0.0.1"`}
	case text == "*":
		return &fault{`"*" is no address`, `write "0.0.0.0" for IPv4 or "[::]" for IPv6 and IPv4`}
	case strings.Contains(text, "://"):
		return &fault{fmt.Sprintf("%s is a URL", quoted(text)), "write the host alone; the port has a key of its own"}
	case strings.HasPrefix(text, "unix:"), strings.HasPrefix(text, "/"):
		return &fault{"unix sockets are not supported", `write an IP address or a host name, such as "127.0.0.1"`}
	}
	if _, err := netip.ParseAddrPort(text); err == nil || hostPort(text) {
		return &fault{fmt.Sprintf("%s has a port in it", quoted(text)), "write the port as the key `port`"}
	}
	if !hostName(text) {
		return &fault{fmt.Sprintf("%s is neither an IP address nor a host name", quoted(text)),
			`write one such as "127.0.0.1", "[::1]" or "app.example.com"`}
	}
	return nil
}

func hostPort(text string) bool {
	host, port, ok := strings.Cut(text, ":")
	return ok && hostName(host) && port != "" && strings.Trim(port, "0123456789") == ""
}

// hostName follows RFC 1123 section 2.1, with the underscore that names inside
// of clusters have. A last label of digits is a mistyped IP address.
func hostName(text string) bool {
	text = strings.TrimSuffix(text, ".")
	if text == "" || len(text) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if bare(label) != label {
			return false
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

func unbracket(address string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if len(inner) == len(address)-2 && strings.Contains(inner, ":") {
		return inner
	}
	return address
}

func checkName(text string) *fault {
	if text == "" || len(text) > 128 {
		return &fault{"a name has 1 to 128 bytes", `write one such as "app-1"`}
	}
	return nil
}

func checkPath(text string) *fault {
	if text == "" {
		return &fault{"the path is empty", "write the path, or leave the key out"}
	}
	return nil
}

func checkFileName(text string) *fault {
	if text == "" || text == "." || text == ".." || strings.ContainsAny(text, `/\`) {
		return &fault{fmt.Sprintf("%s is no file name", quoted(text)),
			`write one without a folder, such as "index.html"`}
	}
	return nil
}
