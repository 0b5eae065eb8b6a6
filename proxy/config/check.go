package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"atlas/proxy/balance"
)

// checkAll looks at what one key alone cannot tell: what is missing, and what
// contradicts something else.
func (r *reader) checkAll() {
	r.checkTable("listen", "listen")
	if r.config.Listen.TLS != nil {
		r.checkTLS(r.config.Listen.TLS)
	}
	for i := range r.config.Upstreams {
		instance := fmt.Sprintf("%s[%d]", repeated, i)
		r.checkTable(repeated, instance)
		r.checkPort(&r.config.Upstreams[i], instance)
		r.checkUpstreamTLS(&r.config.Upstreams[i], instance)
	}
	r.checkNames()
	r.checkRouting()
	r.checkAdmin()
	if !r.failed("listen.mode") {
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
				fmt.Sprintf("%s has no `%s`", brackets(table), k.Name()), "add " + k.Example()})
		}
	}
}

// checkPort wants a port of every upstream but a Unix socket, which has none.
func (r *reader) checkPort(u *Upstream, instance string) {
	at, set := r.seen[instance+".port"]
	_, addressed := r.seen[instance+".address"]
	unix := strings.HasPrefix(u.Address, unixPrefix)
	switch {
	case unix && set:
		r.fail(at, instance+".port", fault{"a Unix socket has no port", "leave the key out"})
	case !unix && !set && !(addressed && r.failed(instance+".address")):
		r.fail(r.seen[instance], instance+".port", fault{
			fmt.Sprintf("%s has no `port`", brackets(repeated)), "add port = 8080"})
	}
}

// weightedRoundRobin is what others call our round robin, which has weights.
const weightedRoundRobin = "weighted_round_robin"

// checkRouting holds the strategy and what it goes by together.
func (r *reader) checkRouting() {
	routing := &r.config.Routing
	if routing.Strategy == weightedRoundRobin {
		routing.Strategy = balance.RoundRobin
	}
	at, set := r.seen["routing.hash"]
	switch hashes := routing.Strategy == balance.Hash; {
	case hashes && !set:
		r.fail(r.seen["routing.strategy"], "routing.hash", fault{
			`strategy "hash" needs what to go by`, `add hash = "header=NAME", "cookie=NAME" or "path"`})
	case !hashes && set && !r.failed("routing.strategy") && !r.failed("routing.hash"):
		r.fail(at, "routing.hash", fault{
			fmt.Sprintf("strategy %s goes by no `hash`", r.shown("routing.strategy", string(routing.Strategy))),
			`write strategy = "hash", or leave it out`})
	}
}

// failed reports that a key has a problem already.
func (r *reader) failed(key string) bool {
	return slices.ContainsFunc(r.errs, func(e Error) bool { return e.Key == key })
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
			"two upstreams have the name " + r.shown(fmt.Sprintf("%s[%d].name", repeated, i), u.Name),
			fmt.Sprintf("the other is on line %d; give each its own", r.doc.line(there)),
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
			fmt.Sprintf("no upstreams: mode %s needs at least one", r.shown("listen.mode", string(mode))),
			"add [[upstreams]] with name, address and port"})
	case mode == Static && !root && !alias:
		r.fail(r.seen["static_files"], "static_files.root", fault{
			`mode "static" needs the folder to serve`, `write root = "/var/www/html" in [static_files]`})
	case mode == TCP:
		r.checkTCP()
	case mode == HTTP:
		r.checkHTTP()
	}
}

// checkTCP has defaults of its own, and no requests to go by.
func (r *reader) checkTCP() {
	for i := range r.keys {
		if k := &r.keys[i]; k.InTCP != "" && r.seen[k.Path] == (span{}) {
			r.setTo(k, k.InTCP)
		}
	}
	if r.config.Routing.Strategy == balance.Hash {
		r.fail(r.seen["routing.strategy"], "routing.strategy", fault{
			`strategy "hash" goes by a request, and mode "tcp" knows none`, `write strategy = "ip_hash"`})
	}
}

// checkHTTP refuses what would tell an upstream one client for the requests of
// many: a connection to it serves them all.
func (r *reader) checkHTTP() {
	for i := range r.config.Upstreams {
		path := fmt.Sprintf("%s[%d].send_proxy", repeated, i)
		if at, set := r.seen[path]; set {
			r.fail(at, path, fault{
				"`send_proxy` names one client, and in mode \"http\" a connection carries the requests of many",
				"leave it out: X-Forwarded-For names the client of each request"})
		}
	}
}

// unused warns of what the file says and its mode does not use, once for a
// table that is not used at all.
func (r *reader) unused() []Warning {
	mode := r.config.Listen.Mode
	named := r.shown("listen.mode", string(mode))
	var found Errors
	warn := func(at span, key, message string) {
		found = append(found, *r.doc.problem(at, key, message, ""))
	}
	idle := func(k *Key) bool { return len(k.Modes) > 0 && !slices.Contains(k.Modes, mode) }
	for _, table := range r.tables {
		at, there := r.seen[table]
		used := slices.ContainsFunc(r.keys, func(k Key) bool { return k.Table() == table && !idle(&k) })
		if there && !used {
			warn(at, table, fmt.Sprintf("mode %s does not use %s", named, brackets(table)))
		}
		if there && !used || table == repeated || table == certificates {
			continue
		}
		for i := range r.keys {
			k := &r.keys[i]
			if at, set := r.seen[k.Path]; set && k.Table() == table && idle(k) {
				warn(at, k.Path, fmt.Sprintf("mode %s does not use `%s`", named, k.Name()))
			}
		}
	}
	weighted := slices.ContainsFunc(r.config.Upstreams, func(u Upstream) bool { return u.Weight > 0 })
	if mode != Static && !weighted {
		warn(r.seen[repeated], repeated, "every upstream has weight 0: no request can be served")
	}
	if mode != TCP && r.config.Limits.RequestsPerSecond == 0 {
		for _, path := range []string{"limits.burst", "limits.rate_by"} {
			if at, set := r.seen[path]; set {
				found = append(found, *r.doc.problem(at, path,
					fmt.Sprintf("`%s` does nothing: there is no limit of requests", path[len("limits."):]),
					"write `requests_per_second` as well"))
			}
		}
	}
	r.errs = found
	var warnings []Warning
	for _, e := range r.sorted() {
		warnings = append(warnings, Warning(e))
	}
	return warnings
}

// checkUpstreamAddress accepts what checkAddress does, and a Unix socket.
func checkUpstreamAddress(text string) *fault {
	path, unix := strings.CutPrefix(text, unixPrefix)
	switch {
	case !unix && strings.HasPrefix(text, "/"):
		return &fault{fmt.Sprintf("%s is a path", quoted(text)), `write "unix:" in front of the path of a Unix socket`}
	case !unix:
		return checkAddress(text)
	case !strings.HasPrefix(path, "/"):
		return &fault{"the path of a Unix socket is absolute", `write one such as "unix:/run/app.sock"`}
	case len(path) > unixPathMax:
		return &fault{
			fmt.Sprintf("the path of a Unix socket has at most %d bytes", unixPathMax), "choose a shorter one"}
	}
	return nil
}

// unixPathMax is what struct sockaddr_un holds beside its final zero byte.
const unixPathMax = 107

// checkHash accepts what HashOf splits.
func checkHash(text string) *fault {
	of, name, named := strings.Cut(text, "=")
	switch {
	case text == HashPath, (of == HashHeader || of == HashCookie) && token(name):
		return nil
	case (of == HashHeader || of == HashCookie) && named:
		return &fault{fmt.Sprintf("%s is no name of a %s", quoted(name), of), `write one such as "header=X-User"`}
	}
	return &fault{fmt.Sprintf("%s is nothing to go by", quoted(text)),
		`write "header=NAME", "cookie=NAME" or "path"`}
}

// checkRateBy accepts what RateField splits.
func checkRateBy(text string) *fault {
	name, header := strings.CutPrefix(text, HashHeader+"=")
	switch {
	case text == "address", header && token(name):
		return nil
	case header:
		return &fault{fmt.Sprintf("%s is no name of a header", quoted(name)), `write one such as "header=X-API-Key"`}
	}
	return &fault{fmt.Sprintf("%s tells no clients apart", quoted(text)), `write "address" or "header=NAME"`}
}

// checkCookie accepts the name of a cookie (RFC 6265 section 4.1.1).
func checkCookie(text string) *fault {
	if !token(text) {
		return &fault{fmt.Sprintf("%s is no name of a cookie", quoted(text)), `write one such as "atlas"`}
	}
	return nil
}

// token reports that text can be the name of a field or a cookie (RFC 9110
// section 5.6.2).
func token(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

// checkTarget accepts the path, and query, of a request.
func checkTarget(text string) *fault {
	never := func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }
	if !strings.HasPrefix(text, "/") || strings.ContainsFunc(text, never) {
		return &fault{fmt.Sprintf("%s is no path to ask for", quoted(text)), `write one such as "/healthz"`}
	}
	return nil
}

// parsePrefix reads a network, or an address, which is a network of one.
func parsePrefix(text string) (netip.Prefix, *fault) {
	if address, err := netip.ParseAddr(unbracket(text)); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return network, &fault{fmt.Sprintf("%s is neither an address nor a network", quoted(text)),
			`write one such as "10.0.0.0/8" or "192.0.2.1"`}
	}
	if network != network.Masked() {
		return network, &fault{fmt.Sprintf("%s has bits beyond its length", quoted(text)),
			fmt.Sprintf("did you mean %q?", network.Masked())}
	}
	return network, nil
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
	case strings.HasPrefix(text, unixPrefix), strings.HasPrefix(text, "/"):
		return &fault{"listening on a Unix socket is not built yet",
			`write an IP address or a host name, such as "127.0.0.1"`}
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

// socketPathMax is what a socket's address holds (sun_path), less the number of a
// process behind it for the time until it is in its place.
const socketPathMax = 107 - len(".4194304")

func checkHandover(text string) *fault {
	switch {
	case text == HandoverOff || strings.HasPrefix(text, "/") && len(text) <= socketPathMax:
		return nil
	case strings.HasPrefix(text, "/"):
		return &fault{fmt.Sprintf("a socket's path has at most %d bytes", socketPathMax), "choose another folder"}
	}
	return &fault{fmt.Sprintf("%s is no path from the root on", quoted(text)), `write one, or "off"`}
}

func checkFileName(text string) *fault {
	if text == "" || text == "." || text == ".." || strings.ContainsAny(text, `/\`) {
		return &fault{fmt.Sprintf("%s is no file name", quoted(text)),
			`write one without a folder, such as "index.html"`}
	}
	return nil
}
