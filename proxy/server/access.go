package server

import (
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/config"
)

// accessPatience is how long the end of the process waits for the rest of the
// access log to be written.
const accessPatience = time.Second

// openAccessLog opens what the configuration says.
func openAccessLog(c *config.AccessLog) (*accesslog.Opened, error) {
	settings, err := accessSettings(c)
	if err != nil {
		return nil, err
	}
	return accesslog.Open(settings)
}

func accessSettings(c *config.AccessLog) (accesslog.Settings, error) {
	format, err := accesslog.ParseFormat(c.Format)
	return accesslog.Settings{Format: format, Path: c.Path, Sample: c.Sample}, err
}

// Reopen opens the file of the access log again, for whoever rotates it.
func (s *Server) Reopen() { s.access.Reopen() }
