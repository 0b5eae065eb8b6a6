package main

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/config"
)

// Whatever is logged, nobody has to read \n in it.
func TestLogInLine(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: inLine}))
	wrong := config.Errors{
		{File: "a.toml", Line: 1, Column: 2, Message: "no", Hint: "yes", Source: "x"},
		{File: "a.toml", Line: 3, Column: 4, Message: "nor that", Source: "x"},
	}
	logger.Error("m", "error", errors.Join(errors.New("one"), errors.New("two")), "printed", "a\nb\n", "workers", []int{1},
		"wrong", wrong, "on", true)
	assert.Regexp(t, `level=ERROR msg=m error="one; two" printed="a; b" workers=\[1\] `+
		`wrong="a.toml:1:2: no \(yes\); a.toml:3:4: nor that" on=true\n$`, log.String())
}
