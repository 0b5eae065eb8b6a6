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
	List     Type = "list"     // an array of strings
)

// Reload is what a changed value takes to come into effect, in the words of the
// reference.
type Reload string

// The kinds of Reload.
const (
	Live           Reload = "live"            // open connections have it from their next request
	NewConnections Reload = "new connections" // open ones keep what they began with
	NeedsUpgrade   Reload = "needs an upgrade"
)

// Key is one row of the reference: all that is known of one key.
type Key struct {
	Path     string // table, dot, name: "listen.tls.cert"
	Type     Type
	Default  string // as it would stand in the file; empty: none
	InTCP    string // the default in mode "tcp", if that is another one
	Required bool   // in each table that is there
	Min, Max int64  // of an integer, of bytes, or of a duration in nanoseconds
	Values   []string
	Modes    []Mode // modes that use the key; empty: every mode
	Alias    string // path of the key that this is another name of
	Reload   Reload
	Doc      string // one sentence

	field func(*Config) any   // pointer to the value it sets
	check func(string) *fault // further rule for a string
}

// Table is the path of the table that holds the key.
func (k *Key) Table() string { return k.Path[:strings.LastIndexByte(k.Path, '.')] }

// Name is the key without its table.
func (k *Key) Name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// repeated and certificates name the tables that are written with two brackets.
// Each of the first may have one checked below it.
const (
	repeated     = "upstreams"
	checked      = repeated + ".health_check"
	secured      = "listen.tls"
	certificates = secured + ".certificates"
)

// optional are the tables whose keys have no values, not even defaults, where the
// file does not have the table.
var optional = []string{repeated, checked, secured, certificates}

// Limits of values; where no other limit is known they keep sums from
// overflowing and catch a wrong unit.
const (
	workersMax   = 1024
	backlogMax   = 65535 // the kernel cuts it down to net.core.somaxconn
	upstreamsMax = 1024
	certsMax     = 1024
	weightMax    = 1000
	connsMax     = 1 << 20
	idleMax      = 256 // as many as a worker keeps at all
	queueMax     = 1 << 20
	retriesMax   = 10
	countMax     = 100
	fieldsMax    = 1000
	clientsMax   = 1 << 27 // beyond what the kernel lets a process have (fs.nr_open)
	requestsMax  = 1_000_000
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
	keys = append(keys, healthKeys()...)
	keys = append(keys, routingKeys()...)
	keys = append(keys, staticKeys()...)
	keys = append(keys, timeoutKeys()...)
	keys = append(keys, limitKeys()...)
	keys = append(keys, accessLogKeys()...)
	keys = append(keys, adminKeys()...)
	for i := range keys {
		if keys[i].Reload == "" {
			keys[i].Reload = Live // what a row does not have to say
		}
	}
	return keys
}

func listenKeys() []Key {
	return []Key{
		{Path: "listen.address", Type: String, Default: `"0.0.0.0"`, check: checkAddress, Reload: NewConnections,
			field: func(c *Config) any { return &c.Listen.Address },
			Doc:   "IP address or host name to accept connections on; \"[::]\" takes IPv6 and IPv4."},
		{Path: "listen.port", Type: Integer, Required: true, Max: 65535, Reload: NewConnections,
			field: func(c *Config) any { return &c.Listen.Port },
			Doc:   "TCP port to accept connections on; 0 takes any free one."},
		{Path: "listen.mode", Type: Enum, Default: `"http"`, Values: names(HTTP, TCP, Static),
			Reload: NewConnections,
			field:  func(c *Config) any { return &c.Listen.Mode },
			Doc: "What to do with a connection: proxy HTTP, proxy bytes, or serve files; " +
				"to or from \"tcp\" it takes an upgrade."},
		{Path: "listen.workers", Type: Integer, Default: "0", Max: workersMax, Reload: NeedsUpgrade,
			field: func(c *Config) any { return &c.Listen.Workers },
			Doc:   "Number of worker threads; 0 takes one for each CPU the process may use."},
		{Path: "listen.engine", Type: Enum, Default: `"auto"`, Values: names(Auto, IOUring, Netpoll),
			Reload: NeedsUpgrade,
			field:  func(c *Config) any { return &c.Listen.Engine },
			Doc:    "How to do I/O; \"auto\" takes io_uring where the kernel allows it."},
		{Path: "listen.pin", Type: Boolean, Default: "true", Reload: NeedsUpgrade,
			field: func(c *Config) any { return &c.Listen.Pin },
			Doc:   "Keep each worker on one CPU."},
		{Path: "listen.backlog", Type: Integer, Default: "0", Max: backlogMax,
			field: func(c *Config) any { return &c.Listen.Backlog },
			Doc:   "Connections the kernel may queue before they are accepted; 0 takes 4096 or less."},
		{Path: "listen.handover", Type: String, Reload: NeedsUpgrade, check: checkHandover,
			field: func(c *Config) any { return &c.Listen.Handover },
			Doc: "Path of the socket where atlas upgrade finds this process, or \"off\"; by default atlas.sock in " +
				"$RUNTIME_DIRECTORY, or in the user's directory in /run/user."},
		{Path: "listen.accept_proxy", Type: List, Default: "[]", Reload: NewConnections,
			field: func(c *Config) any { return &c.Listen.AcceptProxy },
			Doc:   "Addresses or networks of proxies that begin each connection with a PROXY header."},
		{Path: "listen.root", Type: String, Alias: "static_files.root", Modes: []Mode{Static}, check: checkPath,
			field: func(c *Config) any { return &c.StaticFiles.Root },
			Doc:   "Another name for root in [static_files]."},
		{Path: "listen.tls.cert", Type: String, Required: true, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &tlsOf(c).Cert },
			Doc:   "PEM file with the certificate chain."},
		{Path: "listen.tls.key", Type: String, Required: true, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &tlsOf(c).Key },
			Doc:   "PEM file with the private key of the certificate."},
		{Path: "listen.tls.client_ca", Type: String, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &tlsOf(c).ClientCA },
			Doc:   "PEM file with the authorities whose certificates clients may have; without it none is asked for."},
		{Path: "listen.tls.client_auth", Type: Enum, Values: names(Require, Optional), Reload: NewConnections,
			field: func(c *Config) any { return &tlsOf(c).ClientAuth },
			Doc:   "Whether every client must have a certificate; with client_ca the default is \"require\"."},
		{Path: "listen.tls.min_version", Type: Enum, Default: `"1.2"`, Values: names(TLS12, TLS13),
			Reload: NewConnections,
			field:  func(c *Config) any { return &tlsOf(c).MinVersion },
			Doc:    "Oldest version of TLS that clients may speak."},
		{Path: "listen.tls.alpn", Type: List, Default: "[]", Modes: []Mode{TCP}, check: checkProtocol,
			Reload: NewConnections,
			field:  func(c *Config) any { return &tlsOf(c).ALPN },
			Doc:    "Protocols to settle on with clients that offer some (ALPN), the best first."},
		{Path: "listen.tls.ocsp_staple", Type: String, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &tlsOf(c).OCSPStaple },
			Doc:   "File with an OCSP response, in DER, that is sent along with the certificate."},
		{Path: certificates + ".cert", Type: String, Required: true, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &lastCertificate(c).Cert },
			Doc:   "PEM file with another certificate chain, for clients that ask for a name that it has."},
		{Path: certificates + ".key", Type: String, Required: true, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &lastCertificate(c).Key },
			Doc:   "PEM file with the private key of that certificate."},
	}
}

func upstreamKeys() []Key {
	proxied := []Mode{HTTP, TCP}
	return []Key{
		{Path: "upstreams.name", Type: String, Required: true, Modes: proxied, check: checkName,
			field: func(c *Config) any { return &lastUpstream(c).Name },
			Doc:   "Name in logs and metrics, different for each upstream."},
		{Path: "upstreams.address", Type: String, Required: true, Modes: proxied, check: checkUpstreamAddress,
			field: func(c *Config) any { return &lastUpstream(c).Address },
			Doc:   "IP address, host name (all its addresses, looked up again every 30 s), or \"unix:/path\"."},
		{Path: "upstreams.port", Type: Integer, Min: 1, Max: 65535, Modes: proxied,
			field: func(c *Config) any { return &lastUpstream(c).Port },
			Doc:   "TCP port of the upstream; required but with a Unix socket."},
		{Path: "upstreams.weight", Type: Integer, Default: "1", Max: weightMax, Modes: proxied,
			field: func(c *Config) any { return &lastUpstream(c).Weight },
			Doc:   "Share of the requests relative to the other upstreams; 0 sends no new ones."},
		{Path: "upstreams.max_connections", Type: Integer, Default: "0", Max: connsMax, Modes: proxied,
			field: func(c *Config) any { return &lastUpstream(c).MaxConnections },
			Doc:   "Requests, or connections in mode \"tcp\", at once at each address, others wait; 0 sets no limit."},
		{Path: "upstreams.min_idle", Type: Integer, Default: "0", Max: idleMax, Modes: []Mode{HTTP},
			field: func(c *Config) any { return &lastUpstream(c).MinIdle },
			Doc:   "Idle connections that each worker keeps ready at each address of the upstream."},
		{Path: "upstreams.tls", Type: Boolean, Default: "false", Modes: proxied, Reload: NewConnections,
			field: func(c *Config) any { return &lastUpstream(c).TLS },
			Doc:   "Speak TLS to the upstream, whose certificate must be good."},
		{Path: "upstreams.server_name", Type: String, Modes: proxied, check: checkServerName, Reload: NewConnections,
			field: func(c *Config) any { return &lastUpstream(c).ServerName },
			Doc:   "Name that the certificate of the upstream has to have; by default that is its address."},
		{Path: "upstreams.ca", Type: String, Modes: proxied, check: checkPath, Reload: NewConnections,
			field: func(c *Config) any { return &lastUpstream(c).CA },
			Doc:   "PEM file with the authorities of the upstream's certificate; by default the system's."},
		{Path: "upstreams.send_proxy", Type: Enum, Values: []string{"v1", "v2"}, Modes: []Mode{TCP},
			Reload: NewConnections,
			field:  func(c *Config) any { return &lastUpstream(c).SendProxy },
			Doc:    "Begin each connection to the upstream with a PROXY header of this version."},
	}
}

func healthKeys() []Key {
	keys := []Key{
		{Path: checked + ".path", Type: String, Default: `"/"`, check: checkTarget,
			field: func(c *Config) any { return &healthOf(c).Path },
			Doc:   "Path to ask for with GET; a status of 200 to 399 is healthy, in mode \"tcp\" any connection."},
		{Path: checked + ".interval", Type: Duration, Default: `"10s"`,
			field: func(c *Config) any { return &healthOf(c).Interval },
			Doc:   "Time between two checks, give or take a tenth."},
		{Path: checked + ".timeout", Type: Duration, Default: `"5s"`,
			field: func(c *Config) any { return &healthOf(c).Timeout },
			Doc:   "Time a check may take."},
		{Path: checked + ".fall", Type: Integer, Default: "3", Min: 1, Max: countMax,
			field: func(c *Config) any { return &healthOf(c).Fall },
			Doc:   "Failed checks in a row that take an upstream out."},
		{Path: checked + ".rise", Type: Integer, Default: "2", Min: 1, Max: countMax,
			field: func(c *Config) any { return &healthOf(c).Rise },
			Doc:   "Successful checks in a row that bring it back."},
	}
	for i := range keys {
		keys[i].Modes = []Mode{HTTP, TCP}
		if keys[i].Type == Duration {
			keys[i].Min, keys[i].Max = int64(timeoutMin), int64(timeoutMax)
		}
	}
	return keys
}

func routingKeys() []Key {
	http, proxied := []Mode{HTTP}, []Mode{HTTP, TCP}
	return []Key{
		{Path: "routing.strategy", Type: Enum, Default: `"round_robin"`, Modes: proxied,
			Values: append(names(balance.Strategies()...), weightedRoundRobin),
			field:  func(c *Config) any { return &c.Routing.Strategy },
			Doc:    "How to choose the upstream of a request, or of a connection in mode \"tcp\"."},
		{Path: "routing.hash", Type: String, Modes: http, check: checkHash,
			field: func(c *Config) any { return &c.Routing.Hash },
			Doc:   "What strategy \"hash\" goes by: \"header=NAME\", \"cookie=NAME\" or \"path\"."},
		{Path: "routing.sticky", Type: String, Modes: http, check: checkCookie,
			field: func(c *Config) any { return &c.Routing.Sticky },
			Doc:   "Name of a cookie that keeps each client at the upstream it had first."},
		{Path: "routing.retries", Type: Integer, Default: "2", Max: retriesMax, Modes: proxied,
			field: func(c *Config) any { return &c.Routing.Retries },
			Doc:   "Further tries, on other upstreams first, of a request that no upstream can have acted upon."},
		{Path: "routing.retry_budget", Type: Integer, Default: "20", Max: 100, Modes: proxied,
			field: func(c *Config) any { return &c.Routing.RetryBudget },
			Doc:   "Percent of the requests of ten seconds that may be tried again after a time-out; 30 always may."},
		{Path: "routing.slow_start", Type: Duration, Default: `"0s"`, Max: int64(timeoutMax), Modes: proxied,
			field: func(c *Config) any { return &c.Routing.SlowStart },
			Doc:   "Time in which an upstream that comes back gets from a tenth to all of its share."},
		{Path: "routing.queue", Type: Integer, Default: "1024", Max: queueMax, Modes: proxied,
			field: func(c *Config) any { return &c.Routing.Queue },
			Doc:   "Requests that may wait for an upstream with max_connections; more are refused at once."},
		{Path: "routing.trusted_proxies", Type: List, Default: "[]", Modes: http,
			field: func(c *Config) any { return &c.Routing.TrustedProxies },
			Doc:   "Addresses or networks whose X-Forwarded-For, -Proto, -Host and Forwarded are believed."},
		{Path: "routing.server_timing", Type: Boolean, Default: "false", Modes: http,
			field: func(c *Config) any { return &c.Routing.ServerTiming },
			Doc:   "Tell clients in Server-Timing what a response has waited for: queue, connection, upstream."},
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
		{Path: "static_files.precompressed", Type: Boolean, Default: "true", Modes: static,
			field: func(c *Config) any { return &c.StaticFiles.Precompressed },
			Doc:   "Serve a.js.br, a.js.zst or a.js.gz for a.js to who accepts it, if it is not older."},
	}
}

func timeoutKeys() []Key {
	keys := []Key{
		{Path: "timeouts.header", Default: `"10s"`,
			field: func(c *Config) any { return &c.Timeouts.Header },
			Doc:   "Time a client has to send a whole request head, and a proxy its PROXY header."},
		{Path: "timeouts.body", Default: `"60s"`, Modes: []Mode{HTTP, Static},
			field: func(c *Config) any { return &c.Timeouts.Body },
			Doc:   "Longest pause of a client within a request body."},
		{Path: "timeouts.write", Default: `"60s"`, Modes: []Mode{HTTP, Static},
			field: func(c *Config) any { return &c.Timeouts.Write },
			Doc:   "Longest time a client may take no bytes of a response."},
		{Path: "timeouts.idle", Default: `"75s"`, Modes: []Mode{HTTP, Static},
			field: func(c *Config) any { return &c.Timeouts.Idle },
			Doc:   "Time a client connection is kept between two requests."},
		{Path: "timeouts.handshake", Default: `"10s"`, Reload: NewConnections,
			field: func(c *Config) any { return &c.Timeouts.Handshake },
			Doc:   "Time a TLS handshake may take, with a client from when it connects."},
		{Path: "timeouts.connect", Default: `"3s"`, Modes: []Mode{HTTP, TCP},
			field: func(c *Config) any { return &c.Timeouts.Connect },
			Doc:   "Time to connect to an upstream."},
		{Path: "timeouts.upstream", Default: `"60s"`, Modes: []Mode{HTTP},
			field: func(c *Config) any { return &c.Timeouts.Upstream },
			Doc:   "Longest time an upstream may send or take nothing within an exchange."},
		{Path: "timeouts.pool", Default: `"60s"`, Modes: []Mode{HTTP},
			field: func(c *Config) any { return &c.Timeouts.Pool },
			Doc:   "Time a connection to an upstream is kept between two requests."},
		{Path: "timeouts.queue", Default: `"3s"`, Modes: []Mode{HTTP, TCP},
			field: func(c *Config) any { return &c.Timeouts.Queue },
			Doc:   "Time a request may wait for an upstream with max_connections."},
		{Path: "timeouts.tunnel", Default: `"1h"`, InTCP: `"10m"`, Modes: []Mode{HTTP, TCP},
			field: func(c *Config) any { return &c.Timeouts.Tunnel },
			Doc:   "Longest time nothing may move on an upgraded connection, such as a WebSocket, or in mode \"tcp\"."},
		{Path: "timeouts.drain", Default: `"30s"`,
			field: func(c *Config) any { return &c.Timeouts.Drain },
			Doc:   "Time open exchanges have to end when the server stops."},
		{Path: "timeouts.upgrade", Default: `"60s"`,
			field: func(c *Config) any { return &c.Timeouts.Upgrade },
			Doc:   "Time a new process has from its start until it serves, in an upgrade."},
	}
	for i := range keys {
		keys[i].Type = Duration
		keys[i].Min, keys[i].Max = int64(timeoutMin), int64(timeoutMax)
	}
	keys = append(keys, Key{Path: "timeouts.drain_delay", Type: Duration, Default: `"0s"`, Max: int64(timeoutMax),
		field: func(c *Config) any { return &c.Timeouts.DrainDelay },
		Doc:   "Time everything goes on when the server is told to stop, while readiness says no."})
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
		{Path: "limits.rate_min", Type: Bytes, Default: "240", Max: 1 << 30, Modes: heads,
			field: func(c *Config) any { return &c.Limits.RateMin },
			Doc:   "Bytes a second that a client has to send of a body or take of a response; 0 sets no limit."},
		{Path: "limits.connections", Type: Integer, Default: "0", Max: clientsMax, Reload: NewConnections,
			field: func(c *Config) any { return &c.Limits.Connections },
			Doc:   "Client connections at once; 0 takes 3/4 of the file descriptors, in static mode all but 256."},
		{Path: "limits.connections_per_ip", Type: Integer, Default: "0", Max: clientsMax, Reload: NewConnections,
			field: func(c *Config) any { return &c.Limits.ConnectionsPerIP },
			Doc:   "Client connections at once of one IPv4 address or IPv6 /64 network; 0 sets no limit."},
		{Path: "limits.requests_per_second", Type: Integer, Default: "0", Max: requestsMax, Modes: heads,
			field: func(c *Config) any { return &c.Limits.RequestsPerSecond },
			Doc:   "Requests a second of one client, more get 429; 0 sets no limit."},
		{Path: "limits.burst", Type: Integer, Default: "0", Max: requestsMax, Modes: heads,
			field: func(c *Config) any { return &c.Limits.Burst },
			Doc:   "Requests that a client may make at once after a pause; 0 takes requests_per_second."},
		{Path: "limits.rate_by", Type: String, Default: `"address"`, Modes: heads, check: checkRateBy,
			field: func(c *Config) any { return &c.Limits.RateBy },
			Doc:   "What tells clients apart: \"address\", or \"header=NAME\" where a request has that field."},
	}
}

func adminKeys() []Key {
	return []Key{
		{Path: "admin.address", Type: String, check: checkAdminAddress, Reload: NewConnections,
			field: func(c *Config) any { return &c.Admin.Address },
			Doc:   "Where to serve metrics, status and commands: an IP address with a port, or \"unix:/path\"."},
		{Path: "admin.allow_remote", Type: Boolean, Default: "false",
			field: func(c *Config) any { return &c.Admin.AllowRemote },
			Doc:   "Whether an address that is not a loopback one is meant: there is no password."},
		{Path: "admin.host", Type: String, check: checkServerName,
			field: func(c *Config) any { return &c.Admin.Host },
			Doc:   "Name that requests may come under, beside \"localhost\" and IP addresses."},
		{Path: "admin.socket_mode", Type: Enum, Default: `"0600"`, Values: []string{"0600", "0660"},
			Reload: NewConnections,
			field:  func(c *Config) any { return &c.Admin.SocketMode },
			Doc:    "Permissions of a Unix socket: for the user alone, or for the group as well."},
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

// lastCertificate is the table being read.
func lastCertificate(c *Config) *Certificate {
	tls := tlsOf(c)
	return &tls.Certificates[len(tls.Certificates)-1]
}

func healthOf(c *Config) *HealthCheck {
	up := lastUpstream(c)
	if up.HealthCheck == nil {
		up.HealthCheck = new(HealthCheck)
	}
	return up.HealthCheck
}

// lastUpstream is the table being read: a file gives them one after the other.
func lastUpstream(c *Config) *Upstream {
	return &c.Upstreams[len(c.Upstreams)-1]
}
