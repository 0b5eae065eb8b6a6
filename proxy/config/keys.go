package config

import (
	"math"
	"strings"
	"time"

	"atlas/proxy/balance"
)

// Type is what a key takes, in the words of the reference.
type Type string

// The types.
const (
	String   Type = "string"
	Integer  Type = "integer"
	Boolean  Type = "boolean"
	Duration Type = "duration" // a string such as "10s"
	Bytes    Type = "bytes"    // an integer, or a string such as "64MiB"
	Enum     Type = "enum"     // a string out of Values
)

// Key is one row of the reference: all that is known of one key.
type Key struct {
	Path     string // table, dot, name: "listen.tls.cert"
	Type     Type
	Default  string // as it would stand in the file; empty: none
	Required bool   // in each table that is there
	Min, Max int64  // of an integer, of bytes, or of a duration in nanoseconds
	Values   []string
	Modes    []Mode // modes that use the key; empty: every mode
	Alias    string // path of the key that this is another name of
	Doc      string // one sentence

	field func(*Config) any   // pointer to the value it sets
	check func(string) *fault // further rule for a string
}

// Table is the path of the table that holds the key.
func (k *Key) Table() string { return k.Path[:strings.LastIndexByte(k.Path, '.')] }

// Name is the key without its table.
func (k *Key) Name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// repeated names the table that is written with two brackets.
const repeated = "upstreams"

// Limits of values; where no other limit is known they keep sums from
// overflowing and catch a wrong unit.
const (
	workersMax   = 1024
	backlogMax   = 65535 // the kernel cuts it down to net.core.somaxconn
	upstreamsMax = 1024
	weightMax    = 1000
	fieldsMax    = 1000
	headMin      = 1 << 10
	headMax      = 1 << 20
	timeoutMin   = time.Millisecond
	timeoutMax   = 24 * time.Hour
)

// Keys returns every key there is, in the order of the reference.
func Keys() []Key {
	var keys []Key
	keys = append(keys, listenKeys()...)
	keys = append(keys, upstreamKeys()...)
	keys = append(keys, staticKeys()...)
	keys = append(keys, timeoutKeys()...)
	return append(keys, limitKeys()...)
}

func listenKeys() []Key {
	return []Key{
		{Path: "listen.address", Type: String, Default: `"0.0.0.0"`, check: checkAddress,
			field: func(c *Config) any { return &c.Listen.Address },
			Doc:   "IP address or host name to accept connections on; \"[::]\" takes IPv6 and IPv4."},
		{Path: "listen.port", Type: Integer, Required: true, Max: 65535,
			field: func(c *Config) any { return &c.Listen.Port },
			Doc:   "TCP port to accept connections on; 0 takes any free one."},
		{Path: "listen.mode", Type: Enum, Default: `"http"`, Values: names(HTTP, TCP, Static),
			field: func(c *Config) any { return &c.Listen.Mode },
			Doc:   "What to do with a connection: proxy HTTP, proxy bytes, or serve files."},
		{Path: "listen.workers", Type: Integer, Default: "0", Max: workersMax,
			field: func(c *Config) any { return &c.Listen.Workers },
			Doc:   "Number of worker threads; 0 takes one for each CPU the process may use."},
		{Path: "listen.engine", Type: Enum, Default: `"auto"`, Values: names(Auto, IOUring, Netpoll),
			field: func(c *Config) any { return &c.Listen.Engine },
			Doc:   "How to do I/O; \"auto\" takes io_uring where the kernel allows it."},
		{Path: "listen.pin", Type: Boolean, Default: "true",
			field: func(c *Config) any { return &c.Listen.Pin },
			Doc:   "Keep each worker on one CPU."},
		{Path: "listen.backlog", Type: Integer, Default: "0", Max: backlogMax,
			field: func(c *Config) any { return &c.Listen.Backlog },
			Doc:   "Connections the kernel may queue before they are accepted; 0 takes 4096 or less."},
		{Path: "listen.root", Type: String, Alias: "static_files.root", Modes: []Mode{Static}, check: checkPath,
			field: func(c *Config) any { return &c.StaticFiles.Root },
			Doc:   "Another name for root in [static_files]."},
		{Path: "listen.tls.cert", Type: String, Required: true, check: checkPath,
			field: func(c *Config) any { return &tlsOf(c).Cert },
			Doc:   "PEM file with the certificate chain."},
		{Path: "listen.tls.key", Type: String, Required: true, check: checkPath,
			field: func(c *Config) any { return &tlsOf(c).Key },
			Doc:   "PEM file with the private key of the certificate."},
	}
}

func upstreamKeys() []Key {
	proxied := []Mode{HTTP, TCP}
	return []Key{
		{Path: "upstreams.name", Type: String, Required: true, Modes: proxied, check: checkName,
			field: func(c *Config) any { return &lastUpstream(c).Name },
			Doc:   "Name in logs and metrics, different for each upstream."},
		{Path: "upstreams.address", Type: String, Required: true, Modes: proxied, check: checkAddress,
			field: func(c *Config) any { return &lastUpstream(c).Address },
			Doc:   "IP address or host name of the upstream."},
		{Path: "upstreams.port", Type: Integer, Required: true, Min: 1, Max: 65535, Modes: proxied,
			field: func(c *Config) any { return &lastUpstream(c).Port },
			Doc:   "TCP port of the upstream."},
		{Path: "upstreams.weight", Type: Integer, Default: "1", Max: weightMax, Modes: proxied,
			field: func(c *Config) any { return &lastUpstream(c).Weight },
			Doc:   "Share of the requests relative to the other upstreams; 0 sends no new ones."},
		{Path: "routing.strategy", Type: Enum, Default: `"round_robin"`, Modes: proxied,
			Values: names(balance.Strategies()...),
			field:  func(c *Config) any { return &c.Routing.Strategy },
			Doc:    "How to choose the upstream of a request."},
	}
}

func staticKeys() []Key {
	static := []Mode{Static}
	return []Key{
		{Path: "static_files.root", Type: String, Modes: static, check: checkPath,
			field: func(c *Config) any { return &c.StaticFiles.Root },
			Doc:   "Folder to serve; required in static mode."},
		{Path: "static_files.index", Type: String, Default: `"index.html"`, Modes: static, check: checkFileName,
			field: func(c *Config) any { return &c.StaticFiles.Index },
			Doc:   "File to serve for a folder."},
		{Path: "static_files.cache_bytes", Type: Bytes, Default: `"64MiB"`, Max: math.MaxInt64, Modes: static,
			field: func(c *Config) any { return &c.StaticFiles.CacheBytes },
			Doc:   "Memory for cached files, of all workers together; 0 caches nothing."},
	}
}

func timeoutKeys() []Key {
	keys := []Key{
		{Path: "timeouts.header", Default: `"10s"`, Modes: []Mode{HTTP, Static},
			field: func(c *Config) any { return &c.Timeouts.Header },
			Doc:   "Time a client has to send a whole request head."},
		{Path: "timeouts.body", Default: `"60s"`, Modes: []Mode{HTTP, Static},
			field: func(c *Config) any { return &c.Timeouts.Body },
			Doc:   "Longest pause of a client within a request body."},
		{Path: "timeouts.write", Default: `"60s"`,
			field: func(c *Config) any { return &c.Timeouts.Write },
			Doc:   "Longest time a client may take no bytes of a response."},
		{Path: "timeouts.idle", Default: `"75s"`,
			field: func(c *Config) any { return &c.Timeouts.Idle },
			Doc:   "Time a client connection is kept between two requests."},
		{Path: "timeouts.connect", Default: `"3s"`, Modes: []Mode{HTTP, TCP},
			field: func(c *Config) any { return &c.Timeouts.Connect },
			Doc:   "Time to connect to an upstream."},
		{Path: "timeouts.upstream", Default: `"60s"`, Modes: []Mode{HTTP},
			field: func(c *Config) any { return &c.Timeouts.Upstream },
			Doc:   "Longest time an upstream may send or take nothing within an exchange."},
		{Path: "timeouts.drain", Default: `"30s"`,
			field: func(c *Config) any { return &c.Timeouts.Drain },
			Doc:   "Time open exchanges have to end when the server stops."},
	}
	for i := range keys {
		keys[i].Type = Duration
		keys[i].Min, keys[i].Max = int64(timeoutMin), int64(timeoutMax)
	}
	return keys
}

func limitKeys() []Key {
	heads := []Mode{HTTP, Static}
	return []Key{
		{Path: "limits.header_bytes", Type: Bytes, Default: "16384", Min: headMin, Max: headMax, Modes: heads,
			field: func(c *Config) any { return &c.Limits.HeaderBytes },
			Doc:   "Size of a request or response head, first line included."},
		{Path: "limits.header_fields", Type: Integer, Default: "100", Min: 1, Max: fieldsMax, Modes: heads,
			field: func(c *Config) any { return &c.Limits.HeaderFields },
			Doc:   "Number of fields of a head."},
		{Path: "limits.body_bytes", Type: Bytes, Default: "0", Max: math.MaxInt64, Modes: []Mode{HTTP},
			field: func(c *Config) any { return &c.Limits.BodyBytes },
			Doc:   "Size of a request body; 0 sets no limit."},
	}
}

// names turns the constants of an enumeration into the values of its key.
func names[T ~string](values ...T) []string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return texts
}

func tlsOf(c *Config) *TLS {
	if c.Listen.TLS == nil {
		c.Listen.TLS = new(TLS)
	}
	return c.Listen.TLS
}

// lastUpstream is the table being read: a file gives them one after the other.
func lastUpstream(c *Config) *Upstream {
	return &c.Upstreams[len(c.Upstreams)-1]
}
