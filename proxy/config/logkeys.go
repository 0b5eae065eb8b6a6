package config

import (
	"errors"
	"fmt"

	"atlas/proxy/accesslog"
)

func accessLogKeys() []Key {
	return []Key{
		{Path: "access_log.format", Type: String, Default: `"json"`, check: checkFormat,
			field: func(c *Config) any { return &c.AccessLog.Format },
			Doc:   `Line for each exchange: "json", "common", "combined", "off", or a template: "{client} {status}".`},
		{Path: "access_log.path", Type: String, Default: `"-"`, check: checkPath,
			field: func(c *Config) any { return &c.AccessLog.Path },
			Doc:   "File to append to, which SIGUSR1 opens again; \"-\" is the standard output, \"stderr\" the other."},
		{Path: "access_log.sample", Type: Integer, Default: "1", Min: 1, Max: sampleMax,
			field: func(c *Config) any { return &c.AccessLog.Sample },
			Doc:   "One of so many exchanges is logged, and each that fails or has a status of 500 or more."},
	}
}

// sampleMax keeps a line now and then.
const sampleMax = 1_000_000

// checkFormat accepts what accesslog.ParseFormat reads.
func checkFormat(text string) *fault {
	_, err := accesslog.ParseFormat(text)
	var wrong *accesslog.FormatError
	if !errors.As(err, &wrong) {
		return nil
	}
	formats := []string{accesslog.JSON, accesslog.Common, accesslog.Combined, accesslog.Off}
	f := &fault{message: wrong.Message, hint: `write "json", "common", "combined", "off" or a template such as ` +
		`"{time} {client} {status}"`}
	var names []string
	for _, v := range accesslog.Variables() {
		names = append(names, v.Name)
	}
	if wrong.Unknown == "" {
		if near := Nearest(text, formats); near != "" {
			f.hint = fmt.Sprintf("did you mean %q?", near)
		}
	} else if near := Nearest(wrong.Unknown, names); near != "" {
		f.hint = fmt.Sprintf("did you mean {%s}?", near)
	} else {
		f.hint = "the variables are in docs/access-log.md"
	}
	return f
}
