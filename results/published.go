package results

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed published/readme.json
var readme []byte

// Published holds the figures of the README that the lab reproduces. Only
// their ratios can be compared: machine, load generator and versions differ.
type Published struct {
	Source     string                `json:"source"`
	Machine    string                `json:"machine"`
	Throughput []PublishedThroughput `json:"throughput"`
	TLS        PublishedTLS          `json:"tls"`
	Latency    []PublishedLatency    `json:"latency"`
}

// PublishedThroughput is one table of requests per second.
type PublishedThroughput struct {
	Title    string         `json:"title"`
	Scenario string         `json:"scenario"` // that measures the same thing here
	Own      string         `json:"own"`      // that measures it in the README's own set-up
	Rows     []PublishedRow `json:"rows"`
}

// PublishedRow is one line of such a table; requests per second.
type PublishedRow struct {
	Conns int     `json:"conns"`
	Atlas float64 `json:"atlas"`
	Nginx float64 `json:"nginx"`
}

// PublishedTLS is the table of what TLS costs. The README names no connection
// count; its plain figure is that of the proxy's table at Conns.
type PublishedTLS struct {
	Title    string  `json:"title"`
	Scenario string  `json:"scenario"`       // of the TLS half
	PlainBy  string  `json:"plain_scenario"` // of the plain half
	Own      string  `json:"own"`            // both in the README's own set-up
	OwnPlain string  `json:"own_plain"`
	Conns    int     `json:"conns"`
	Plain    float64 `json:"plain"` // requests per second
	TLS      float64 `json:"tls"`
}

// Overhead returns the share of the requests per second that TLS takes.
func (t PublishedTLS) Overhead() float64 { return 1 - t.TLS/t.Plain }

// PublishedLatency is one line of the latency table. The README does not say
// under which load it was taken.
type PublishedLatency struct {
	Label    string  `json:"label"`
	Scenario string  `json:"scenario"`
	MeanMs   float64 `json:"mean_ms"`
	P99Ms    float64 `json:"p99_ms"`
	// Rate and Conns are what the README's other tables say of the same work.
	Rate  float64 `json:"rate"`
	Conns int     `json:"conns"`
}

// LoadPublished reads the README's figures, which are compiled in.
func LoadPublished() (*Published, error) {
	decoder := json.NewDecoder(bytes.NewReader(readme))
	decoder.DisallowUnknownFields()
	var p Published
	if err := decoder.Decode(&p); err != nil {
		return nil, fmt.Errorf("published/readme.json: %w", err)
	}
	return &p, nil
}
