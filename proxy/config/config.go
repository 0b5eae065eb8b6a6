// Package config turns the text of a configuration file into a checked Config.
// It reads no disk, watches nothing and resolves no name: the caller reads the
// file, and whether a root or a certificate exists is for the server to find
// out. A Config is never changed after Parse returned it, so every thread may
// read it without a lock.
package config

import (
	"net/netip"
	"strings"
	"time"

	"atlas/proxy/balance"
)

// DefaultFile is read where no file is named.
const DefaultFile = "atlas.toml"

// Config is one checked configuration: every value is set, either from the
// file or from the default in the table of keys.
type Config struct {
	File        string // the name given to Parse
	Listen      Listen
	Upstreams   []Upstream // in the order of the file; not used in static mode
	Routing     Routing
	StaticFiles StaticFiles
	Timeouts    Timeouts
	Limits      Limits
	AccessLog   AccessLog
	Admin       Admin
}

// Mode is what the server does with a connection.
type Mode string

// The modes.
const (
	HTTP   Mode = "http"
	TCP    Mode = "tcp"
	Static Mode = "static"
)

// Engine is how the workers do their I/O.
type Engine string

// The engines.
const (
	Auto    Engine = "auto"
	IOUring Engine = "io_uring"
	Netpoll Engine = "netpoll"
)

// Listen is the [listen] table.
type Listen struct {
	Address string // IP address without brackets, or host name
	Port    int    // 0: any free port
	Mode    Mode
	Workers int // 0: one for each CPU the process may use
	Engine  Engine
	Pin     bool // keep each worker on one CPU
	Backlog int  // 0: min(4096, somaxconn)
	// AcceptProxy are proxies whose connections begin with a PROXY header.
	AcceptProxy []netip.Prefix
	TLS         *TLS // nil: plain
	// Handover is the path of the socket at which an upgrade finds this process;
	// empty: where the system has a place for it; HandoverOff: nowhere.
	Handover string
}

// HandoverOff is the Handover of a process that is not to be found.
const HandoverOff = "off"

// TLS is the [listen.tls] table.
type TLS struct {
	Cert string // path of the PEM file with the certificate chain
	Key  string // path of the PEM file with its private key

	ClientCA     string     // path of the PEM file with those who issue clients' certificates; empty: none
	ClientAuth   ClientAuth // empty without ClientCA
	MinVersion   TLSVersion
	ALPN         []string // protocols to choose from in mode "tcp", the best first
	OCSPStaple   string   // path of the file with the OCSP response for Cert; empty: none
	Certificates []Certificate
}

// Certificate is one [[listen.tls.certificates]] table.
type Certificate struct {
	Cert string
	Key  string
}

// ClientAuth is whether a client has to have a certificate.
type ClientAuth string

// The kinds of ClientAuth.
const (
	Require  ClientAuth = "require"
	Optional ClientAuth = "optional" // but one that it has must be good
)

// TLSVersion is a version of TLS.
type TLSVersion string

// The versions.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

// Upstream is one [[upstreams]] table.
type Upstream struct {
	Name    string // unique in the file
	Address string // IP address without brackets, host name, or "unix:" and a path
	Port    int    // 0 with a Unix socket
	Weight  int    // share of the requests; 0: no new ones

	MaxConnections int    // exchanges at once at each of its addresses; 0: no bound
	MinIdle        int    // connections that each worker keeps ready
	SendProxy      string // version of the PROXY header: "v1" or "v2"; empty: none
	HealthCheck    *HealthCheck

	TLS        bool
	ServerName string // that the upstream's certificate has to have; empty: its address
	CA         string // path of the PEM file with the authorities of that; empty: the system's
}

// UnixPath is the path of the Unix socket that an address names, or "".
func UnixPath(address string) string {
	path, unix := strings.CutPrefix(address, unixPrefix)
	if !unix {
		return ""
	}
	return path
}

const unixPrefix = "unix:"

// HealthCheck is the [upstreams.health_check] table of an upstream that has one.
type HealthCheck struct {
	Path     string
	Interval time.Duration
	Timeout  time.Duration
	Fall     int // failures in a row until it is down
	Rise     int // successes in a row until it is up again
}

// Routing is the [routing] table.
type Routing struct {
	Strategy       balance.Strategy
	Hash           string // of strategy "hash": see HashOf
	Sticky         string // name of the cookie that keeps a client at its upstream; empty: none
	Retries        int    // further tries of a request that may be repeated
	RetryBudget    int    // percent of the requests that may be further tries
	SlowStart      time.Duration
	Queue          int // requests that may wait for an upstream with max_connections
	TrustedProxies []netip.Prefix
	ServerTiming   bool
}

// What a hash may go by, in front of "=" and the name of a field or a cookie.
const (
	HashHeader = "header"
	HashCookie = "cookie"
	HashPath   = "path" // no name follows
)

// HashOf splits `hash`: what the key of a request is, and the name of that field
// or cookie.
func (r *Routing) HashOf() (of, name string) {
	of, name, _ = strings.Cut(r.Hash, "=")
	return of, name
}

// StaticFiles is the [static_files] table.
type StaticFiles struct {
	Root          string
	Index         string // file served for a folder
	CacheBytes    int64  // of all workers together; 0: no cache
	Precompressed bool   // a file's siblings .br, .zst and .gz stand for it
}

// Timeouts is the [timeouts] table. None of them can be switched off.
type Timeouts struct {
	Header    time.Duration
	Body      time.Duration
	Write     time.Duration
	Idle      time.Duration
	Handshake time.Duration // of TLS, on both sides
	Connect   time.Duration
	Upstream  time.Duration
	Pool      time.Duration
	Queue     time.Duration
	Tunnel    time.Duration
	Drain     time.Duration
	// DrainDelay is how long the server goes on when it is told to end, and only
	// says that it is not ready.
	DrainDelay time.Duration
	Upgrade    time.Duration // of a new process, until it serves
}

// Limits is the [limits] table.
type Limits struct {
	HeaderBytes  int
	HeaderFields int
	BodyBytes    int64 // 0: unlimited
	RateMin      int64 // bytes a second from and to a client; 0: none

	Connections       int // of clients; 0: by what the system allows the process
	ConnectionsPerIP  int // of one address; 0: any number
	RequestsPerSecond int // of one client; 0: any number
	Burst             int // requests at once of one client; 0: RequestsPerSecond
	RateBy            string
}

// RateField is the name of the request field that tells clients apart; "" where
// their addresses do.
func (l *Limits) RateField() string {
	_, name, _ := strings.Cut(l.RateBy, "=")
	return name
}

// AccessLog is the [access_log] table.
type AccessLog struct {
	Format string // see accesslog.ParseFormat
	Path   string // of a file; "-" is the standard output, "stderr" the other
	Sample int    // one of so many is logged
}

// Admin is the [admin] table.
type Admin struct {
	Address     string // IP address and port, or "unix:" and a path; empty: there is no such listener
	AllowRemote bool   // an address that others can reach is meant
	Host        string // a further name that requests may come under; empty: none
	SocketMode  string // permissions of a Unix socket, in octal
}
