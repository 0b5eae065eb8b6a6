package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"atlas/proxy/config"
	"atlas/proxy/tlsio"
)

const (
	// expiryWarning is how long before a certificate's end its owner is told.
	expiryWarning = 14 * 24 * time.Hour
	// expiryRepeat is how often.
	expiryRepeat = 24 * time.Hour
	// utcTime is how the instants of certificates are told, which are in UTC.
	utcTime = time.DateTime + " UTC"
)

// handshakes is what lives as long as the process of the TLS of the listener: what
// a handshake begins with, and the keys of session tickets.
type handshakes struct {
	current atomic.Pointer[tls.Config] // handshakes take it as they find it; nil: there was no TLS yet

	mu          sync.Mutex // over what follows, which others may ask for
	tickets     tickets
	authorities [sha256.Size]byte // of clients, under which the keys were made
	// told is when it was last said of a certificate that it ends soon: a reload says
	// it no more often.
	told map[[sha256.Size]byte]time.Time
}

// tell reports that it is time to speak of a certificate's end, and notes that.
func (h *handshakes) tell(cert [sha256.Size]byte, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.told, func(_ [sha256.Size]byte, at time.Time) bool { return now.Sub(at) >= expiryRepeat })
	if _, lately := h.told[cert]; lately {
		return false
	}
	if h.told == nil {
		h.told = make(map[[sha256.Size]byte]time.Time)
	}
	h.told[cert] = now
	return true
}

// secure is the TLS of the listener: what the files say that one configuration
// names. It is one goroutine's: of who made it, then of reloader.
type secure struct {
	config     *config.TLS
	alpn       []string // protocols to choose from
	log        *slog.Logger
	handshakes *handshakes

	pairs   []*pair // the first is [listen.tls] itself
	clients source  // certificates of those who may issue those of clients
	staple  source  // OCSP response for the first pair

	pool     *x509.CertPool // of clients
	response []byte         // of staple

	published atomic.Pointer[certificates] // for any goroutine
}

// alpnHTTP is what we speak, to either side, in the modes that speak HTTP.
var alpnHTTP = []string{"http/1.1"}

// source is a file, or two that belong together, and what was last seen there.
type source struct {
	files []string
	seen  [sha256.Size]byte
	// problem is what is wrong with what was seen; empty: nothing.
	problem string
}

// judged notes what became of what was read.
func (f *source) judged(err error) {
	f.problem = ""
	if err != nil {
		f.problem = err.Error()
	}
}

// pair is a certificate and its key. Only such that match are used: of files that
// are just being replaced the old ones stay in use.
type pair struct {
	source
	table string // where the configuration names them
	good  *tls.Certificate
}

// openSecure reads everything, or says what is wrong.
func openSecure(cfg *config.TLS, alpn []string, h *handshakes, log *slog.Logger) (*secure, error) {
	s := newSecure(cfg, alpn, h, log)
	if _, problems := s.refresh(time.Now()); problems != nil {
		return nil, problems[0]
	}
	return s, nil
}

// newSecure knows what to read, and has read nothing.
func newSecure(cfg *config.TLS, alpn []string, h *handshakes, log *slog.Logger) *secure {
	s := &secure{config: cfg, alpn: alpn, log: log, handshakes: h}
	s.pairs = []*pair{{source: source{files: []string{cfg.Cert, cfg.Key}}, table: "[listen.tls]"}}
	for _, c := range cfg.Certificates {
		files := source{files: []string{c.Cert, c.Key}}
		s.pairs = append(s.pairs, &pair{source: files, table: "[[listen.tls.certificates]]"})
	}
	if cfg.ClientCA != "" {
		s.clients.files = []string{cfg.ClientCA}
	}
	if cfg.OCSPStaple != "" {
		s.staple.files = []string{cfg.OCSPStaple}
	}
	return s
}

// use has handshakes begin with it from now on.
func (s *secure) use() {
	now := time.Now()
	s.handshakes.rotate(now)
	s.publish()
	s.warnExpiry(now)
}

// read returns what the files say, and whether that has changed since the last
// time. That a file cannot be read is news as well.
func (f *source) read() (texts [][]byte, changed bool, err error) {
	sum := sha256.New()
	for _, file := range f.files {
		var text []byte
		if text, err = readRegular(file); err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(sum, "%t %d ", err == nil, len(text))
		sum.Write(text)
		if err != nil {
			break
		}
		texts = append(texts, text)
	}
	seen := [sha256.Size]byte(sum.Sum(nil))
	changed = seen != f.seen
	f.seen = seen
	return texts, changed, err
}

// refresh looks at all files and takes over what is new and good. problems are
// what is new and not good: there the old stays in use.
func (s *secure) refresh(now time.Time) (changed bool, problems []error) {
	note := func(took bool, err error) {
		changed = changed || took
		if err != nil {
			problems = append(problems, err)
		}
	}
	for _, p := range s.pairs {
		note(p.refresh())
	}
	note(s.refreshClients())
	note(s.refreshStaple(now, changed))
	return changed, problems
}

func (p *pair) refresh() (took bool, failed error) {
	texts, changed, err := p.read()
	if !changed {
		return false, nil
	}
	defer func() { p.judged(failed) }()
	if err != nil {
		return false, fmt.Errorf("%s %w", p.table, err)
	}
	cert, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "tls: ")
		return false, fmt.Errorf("%s cert %s, key %s: %s", p.table, p.files[0], p.files[1], why)
	}
	p.good = &cert
	return true, nil
}

// refreshClients reads the authorities of clients.
func (s *secure) refreshClients() (took bool, failed error) {
	if s.clients.files == nil {
		return false, nil
	}
	texts, changed, err := s.clients.read()
	if !changed {
		return false, nil
	}
	defer func() { s.clients.judged(failed) }()
	if err != nil {
		return false, fmt.Errorf("[listen.tls] client_ca: %w", err)
	}
	pool, err := parsePool(texts[0])
	if err != nil {
		return false, fmt.Errorf("[listen.tls] client_ca: %s: %w", s.clients.files[0], err)
	}
	s.pool = pool
	return true, nil
}

func parsePool(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("there is no certificate in it")
	}
	return pool, nil
}

// refreshStaple reads the OCSP response, which is sent only if it is good, and
// for the certificate of now.
func (s *secure) refreshStaple(now time.Time, again bool) (took bool, failed error) {
	if s.staple.files == nil {
		return false, nil
	}
	texts, changed, err := s.staple.read()
	if !changed && !again {
		return false, nil
	}
	defer func() { s.staple.judged(failed) }()
	s.response = nil
	if err == nil {
		err = s.checkStaple(texts[0], now)
	}
	if err != nil {
		return true, fmt.Errorf("[listen.tls] ocsp_staple: %w", err)
	}
	s.response = texts[0]
	return true, nil
}

func (s *secure) checkStaple(der []byte, now time.Time) error {
	first := s.pairs[0].good
	if first == nil {
		return nil // the server will not start
	}
	var issuer *x509.Certificate
	if len(first.Certificate) > 1 {
		var err error
		if issuer, err = x509.ParseCertificate(first.Certificate[1]); err != nil {
			return err
		}
	}
	file := s.staple.files[0]
	response, err := ocsp.ParseResponseForCert(der, first.Leaf, issuer)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	case response.SerialNumber.Cmp(first.Leaf.SerialNumber) != 0:
		return fmt.Errorf("%s is about another certificate", file)
	case response.Status != ocsp.Good:
		return fmt.Errorf("%s says that the certificate is not good", file)
	case !response.NextUpdate.IsZero() && now.After(response.NextUpdate):
		return fmt.Errorf("%s has been out of date since %s", file, response.NextUpdate.UTC().Format(utcTime))
	}
	return nil
}

// suites12 are those of TLS 1.2 that authenticate what they encrypt, which is what
// Mozilla calls intermediate; those of TLS 1.3 all do. Go would add two with CBC
// and SHA-1, for clients of before 2014.
var suites12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,
}

// files are all that it reads.
func (s *secure) files() (files []string) {
	for _, p := range s.pairs {
		files = append(files, p.files...)
	}
	return append(append(files, s.clients.files...), s.staple.files...)
}

// look takes over what has changed, says what is wrong, and rotates keys.
func (s *secure) look(now time.Time) {
	changed, problems := s.refresh(now)
	for _, problem := range problems {
		s.log.Error("certificate not taken over: what was there before stays in use", "error", problem)
	}
	rotated := s.handshakes.rotate(now)
	if changed || rotated {
		s.publish()
	} else if problems != nil {
		s.note()
	}
	if changed {
		s.log.Info("certificates loaded", "cert", s.pairs[0].files[0],
			"until", s.pairs[0].good.Leaf.NotAfter.UTC().Format(utcTime))
	}
	s.warnExpiry(now)
}

// publish makes a configuration of what is good, for handshakes from now on.
func (s *secure) publish() {
	var certs []*tls.Certificate
	for i, p := range s.pairs {
		cert := *p.good
		if i == 0 {
			cert.OCSPStaple = s.response
		}
		certs = append(certs, &cert)
	}
	cfg := &tls.Config{
		GetCertificate: tlsio.NewCertificates(certs).Choose,
		NextProtos:     s.alpn,
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   suites12,
		ClientCAs:      s.pool,
	}
	if s.config.MinVersion == config.TLS13 {
		cfg.MinVersion = tls.VersionTLS13
	}
	switch s.config.ClientAuth {
	case config.Require:
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	case config.Optional:
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	s.handshakes.publish(cfg, s.clients.seen)
	s.note()
}

// warnExpiry tells of certificates that end soon, or have ended.
func (s *secure) warnExpiry(now time.Time) {
	for _, p := range s.pairs {
		left := p.good.Leaf.NotAfter.Sub(now)
		if left > expiryWarning || !s.handshakes.tell(sha256.Sum256(p.good.Leaf.Raw), now) {
			continue
		}
		message := "certificate ends soon"
		if left < 0 {
			message = "certificate has ended"
		}
		s.log.Warn(message, "cert", p.files[0], "names", strings.Join(p.good.Leaf.DNSNames, " "),
			"on", p.good.Leaf.NotAfter.UTC().Format(utcTime), "days", int(left.Hours()/24))
	}
}
