package admin

import (
	"encoding/json"
	"net/http"

	"atlas/proxy/config"
)

// ConfigValue is a key of /config.json.
type ConfigValue struct {
	Key   string          `json:"key"`   // "upstreams[1].port"
	Value json.RawMessage `json:"value"` // null: it is not set
	// From is "default", "atlas.toml:3" or "environment PORT, atlas.toml:3".
	From string `json:"from"`
}

// reading is what the configuration that is active was read from, or nil.
func (a *Admin) reading() *config.Reading {
	if s := a.attached(); s != nil {
		return s.Reloads().Reading
	}
	return nil
}

const noReading = "the configuration is not known yet"

// showConfig is what `atlas check --print` has for the configuration that is active.
// What is from the environment stands there by the name of its variable: it may be a
// secret.
func (a *Admin) showConfig(w http.ResponseWriter, _ *http.Request) {
	r := a.reading()
	if r == nil {
		answer(w, http.StatusServiceUnavailable, noReading)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // which browsers show
	_, _ = w.Write([]byte(r.Print()))                           // a client that is gone needs no answer
}

func (a *Admin) showConfigJSON(w http.ResponseWriter, _ *http.Request) {
	r := a.reading()
	if r == nil {
		answer(w, http.StatusServiceUnavailable, noReading)
		return
	}
	all := []ConfigValue{}
	for _, v := range r.Values() {
		c := ConfigValue{Key: v.Table + "." + v.Key.Name(), From: v.From}
		if v.Text != "" {
			c.Value = inJSON(v.Text)
		}
		all = append(all, c)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}

// inJSON is a value of a file. Nearly all of TOML's are JSON as well; what is not is
// shown as it stands there.
func inJSON(text string) json.RawMessage {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, _ := json.Marshal(text) // which a string never fails
	return quoted
}
