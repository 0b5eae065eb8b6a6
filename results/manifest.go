package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Manifest is everything beside the samples that may explain a run.
type Manifest struct {
	Lab       int               `json:"lab"`
	Run       string            `json:"run"`
	Commit    string            `json:"commit"`
	Began     time.Time         `json:"began"`
	Argv      []string          `json:"argv"`
	Facts     []Fact            `json:"facts"`    // of the machine
	Programs  []Fact            `json:"programs"` // what was measured and with what
	EnvHash   string            `json:"env_hash"`
	Cores     Cores             `json:"cores"`
	Warnings  []string          `json:"warnings"`
	Scenarios map[string]string `json:"scenarios"` // hash of the file, by name
	Subjects  map[string]string `json:"subjects"`  // hash of the configuration, by name
	// Foreign are the subjects that the repository has no configuration of, by name.
	Foreign map[string]*Foreign `json:"foreign,omitempty"`
	Order   []Step              `json:"order"` // as they were tried
}

// Fact is one thing that was true during a run.
type Fact struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Foreign is a server that somebody brought: all that it was told, or where it ran.
type Foreign struct {
	File    string `json:"file,omitempty"`    // text of its subject file
	Program string `json:"program,omitempty"` // path
	SHA256  string `json:"sha256,omitempty"`  // of the program, shortened
	URL     string `json:"url,omitempty"`
	PID     int    `json:"pid,omitempty"` // behind the URL; 0 where nobody said
}

// Cores are those of the two sides.
type Cores struct {
	Server  []int
	Client  []int
	Warning string
}

// Step is one sample that was tried.
type Step struct {
	At       time.Time `json:"at"`
	Round    int       `json:"round"`
	Counted  bool      `json:"counted,omitempty"` // of the pass that counts system calls
	Name     string    `json:"name"`
	Requests int       `json:"requests"`
	Notes    []string  `json:"notes,omitempty"`
	Refused  string    `json:"refused,omitempty"`
}

// OpenManifest reads the manifest of a results file: x.json for x.bench, or
// manifest.json in the folder of a run. It returns nil where there is none.
func OpenManifest(bench string) (*Manifest, error) {
	for _, path := range []string{Beside(bench, ".json"), filepath.Join(filepath.Dir(bench), "manifest.json")} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var m Manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &m, nil
	}
	return nil, nil
}
