package attack

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/results"
)

//go:embed done.lua
var doneScript []byte

// wrkReport is the line that done.lua prints.
type wrkReport struct {
	Requests     int     `json:"requests"`
	Microseconds int64   `json:"microseconds"`
	Bytes        int64   `json:"bytes"`
	Connect      int     `json:"connect"`
	Read         int     `json:"read"`
	Write        int     `json:"write"`
	Status       int     `json:"status"`
	Timeout      int     `json:"timeout"`
	MeanUs       float64 `json:"mean_us"`
	P50Us        float64 `json:"p50_us"`
	P99Us        float64 `json:"p99_us"`
}

// wrk runs the measured phase of a closed loop, in whole seconds. wire is what
// a right answer takes: wrk looks at no body, but its bytes must add up.
func (g Generator) wrk(ctx context.Context, target Target, load Load, wire sizes) (phase, error) {
	script := filepath.Join(g.Scratch, "done.lua")
	if err := os.WriteFile(script, doneScript, 0o644); err != nil {
		return phase{}, err
	}
	scheme, conf := "http://", filepath.Join(g.Scratch, "openssl.cnf")
	if target.TLS != nil {
		scheme = "https://"
		if err := os.WriteFile(conf, []byte(cert.OpenSSL()), 0o644); err != nil {
			return phase{}, err
		}
	}
	seconds := int(math.Ceil(load.Measured.Seconds()))
	threads := min(max(1, len(g.Cores)), load.Conns)
	argv := []string{"-t", strconv.Itoa(threads), "-c", strconv.Itoa(load.Conns),
		"-d", strconv.Itoa(seconds) + "s", "-s", script,
		// Of its own it takes 2 s for too long. Thousands of connections opened at once
		// overflow the queue of those to accept (net.core.somaxconn), and a SYN that was
		// dropped is sent again after one second and after two more.
		"--timeout", strconv.Itoa(int(math.Ceil(g.StallMax.Seconds()))) + "s"}
	for _, field := range target.Fields {
		argv = append(argv, "-H", field)
	}
	cmd := exec.Command(g.Wrk, append(argv, scheme+target.Address+target.Path)...)
	cmd.Env = append(os.Environ(), "OPENSSL_CONF="+conf) // missing and not looked at without TLS
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := host.StartOn(cmd, g.Cores); err != nil {
		return phase{}, fmt.Errorf("wrk: %w", err)
	}
	if err := wait(ctx, cmd, time.Duration(seconds)*time.Second+g.StallMax); err != nil {
		return phase{}, fmt.Errorf("wrk: %w\n%s", err, out.Bytes())
	}
	report, err := parseWrk(out.Bytes())
	if err != nil {
		return phase{}, err
	}
	p := report.phase(wire, load.Conns)
	p.clientCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return p, nil
}

// wait reaps cmd, and kills it if ctx ends or it takes too long.
func wait(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	undo := context.AfterFunc(bounded, func() {
		_ = cmd.Process.Kill() // it may have just ended
	})
	defer undo()
	err := cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bounded.Err() != nil {
		return fmt.Errorf("killed after %v", timeout)
	}
	return err
}

// parseWrk finds the report in wrk's output.
func parseWrk(out []byte) (wrkReport, error) {
	_, line, found := bytes.Cut(out, []byte("\nLAB "))
	if !found {
		return wrkReport{}, fmt.Errorf("wrk printed no report:\n%s", out)
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	var r wrkReport
	if err := decoder.Decode(&r); err != nil {
		return wrkReport{}, errors.Join(fmt.Errorf("wrk's report %q", line), err)
	}
	return r, nil
}

// phase turns the report into a phase whose failures are wrk's.
func (r wrkReport) phase(wire sizes, conns int) phase {
	p := phase{
		requests: r.Requests,
		wall:     time.Duration(r.Microseconds) * time.Microsecond,
		latency: map[string]float64{
			results.Mean: r.MeanUs * 1e3,
			results.P50:  r.P50Us * 1e3,
			results.P99:  r.P99Us * 1e3,
		},
	}
	for _, kind := range []struct {
		count int
		text  string
	}{
		{r.Connect, "connect failed"}, {r.Read, "read failed"}, {r.Write, "write failed"},
		{r.Status, "status other than 2xx and 3xx"}, {r.Timeout, "timed out"},
	} {
		if kind.count > 0 {
			p.failures.add(kind.count, fmt.Sprintf("wrk: %d %s", kind.count, kind.text))
		}
	}
	// At the end each connection may have read a part of one more answer.
	least, most := r.Requests*wire.least, (r.Requests+conns)*wire.most
	if r.Bytes < int64(least) || r.Bytes > int64(most) {
		p.failures.add(1, fmt.Sprintf("wrk: %d bytes for %d answers, want %d to %d", r.Bytes, r.Requests, least, most))
	}
	return p
}
