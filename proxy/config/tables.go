package config

import "slices"

// Table is one table of the reference.
type Table struct {
	Path     string
	Doc      string // what it is about
	Example  string // lines of it, with its header
	Repeated bool   // written with two brackets, as often as there are such things
	Optional bool   // nothing in it has a value, not even a default, where the file has no such table
}

// Tables returns the table of each key, in the order of the reference.
func Tables() []Table {
	var tables []Table
	for _, k := range Keys() {
		path := k.Table()
		if slices.ContainsFunc(tables, func(t Table) bool { return t.Path == path }) {
			continue
		}
		t := Table{Path: path, Optional: slices.Contains(optional, path)}
		t.Repeated = path == repeated || path == certificates
		t.Doc, t.Example = describe(path)
		tables = append(tables, t)
	}
	return tables
}

// describe says what a table is for, and shows one.
func describe(path string) (doc, example string) {
	switch path {
	case "admin":
		return "A listener for those who run Atlas: metrics, health, status and commands.", `[admin]
address = "127.0.0.1:9000"`
	case "listen":
		return "Where to accept connections, what to do with them, and how.", `[listen]
address = "0.0.0.0"
port = 8080
mode = "http"`
	case secured:
		return "Speak TLS with clients. The files are read again when they change.", `[listen.tls]
cert = "/etc/atlas/example.com.pem"
key = "/etc/atlas/example.com.key"
min_version = "1.3"`
	case certificates:
		return "A further certificate, for clients that ask for a name that it has.", `[[listen.tls.certificates]]
cert = "/etc/atlas/example.org.pem"
key = "/etc/atlas/example.org.key"`
	case repeated:
		return "A server to which requests, or connections in mode \"tcp\", are passed on.", `[[upstreams]]
name = "app-1"
address = "10.0.0.1"
port = 8081
weight = 2`
	case checked:
		return "Ask an upstream now and then whether it is well, and leave it out if not.", `[upstreams.health_check]
path = "/healthz"
interval = "5s"`
	case "access_log":
		return "A line for each exchange; atlas help variables lists what a template may have.", `[access_log]
format = "combined"
path = "/var/log/atlas/access.log"`
	case "routing":
		return "Which upstream a request goes to, and how often it is tried.", `[routing]
strategy = "least_connections"
retries = 1
trusted_proxies = ["10.0.0.0/8"]`
	case "static_files":
		return "The files of mode \"static\".", `[static_files]
root = "/var/www/html"
cache_bytes = "256MiB"`
	case "timeouts":
		return "How long to wait for what. None of them can be switched off.", `[timeouts]
header = "5s"
upstream = "2m"`
	case "limits":
		return "How much of what a client may send or hold.", `[limits]
body_bytes = "10MiB"
header_bytes = "32KiB"`
	}
	return "", ""
}
