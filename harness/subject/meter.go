package subject

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"atlas/harness/host"
)

// Meter reads the clocks and the memory of a server, wherever it runs.
type Meter interface {
	CPU() (time.Duration, error)
	Kernel() (time.Duration, error)
	Resident() (int64, error)
	Peak() (int64, error)
}

// reading is what ServeMeter says each time it is asked.
type reading struct {
	CPU, Kernel    time.Duration
	Resident, Peak int64
	Failed         string `json:",omitempty"`
}

// ServeMeter runs beside a server in its container, whose first process is the
// server's: for each line of in it writes a reading, as a line. It ends with in.
func ServeMeter(in io.Reader, out io.Writer, pid int) error {
	meter, err := host.NewMeter(pid)
	if err != nil {
		return err
	}
	asked, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for asked.Scan() {
		var r reading
		var cpu, kernel, resident, peak error
		r.CPU, cpu = meter.CPU()
		r.Kernel, kernel = meter.Kernel()
		r.Resident, resident = meter.Resident()
		r.Peak, peak = meter.Peak()
		if err := errors.Join(cpu, kernel, resident, peak); err != nil {
			r.Failed = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
	return asked.Err()
}

// farMeter asks a ServeMeter on another host. One process serves all readings: to
// start one takes longer than many a phase, and would disturb the server.
type farMeter struct {
	command *exec.Cmd
	ask     io.WriteCloser
	answers *json.Decoder
}

// newFarMeter starts a command that runs a ServeMeter, and reads once.
func newFarMeter(command *exec.Cmd) (*farMeter, error) {
	ask, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	said := &tail{}
	command.Stderr = said
	if err := command.Start(); err != nil {
		return nil, err
	}
	m := &farMeter{command, ask, json.NewDecoder(answers)}
	if _, err := m.read(); err != nil {
		m.close()
		return nil, fmt.Errorf("%w: %s", err, said.text)
	}
	return m, nil
}

// read asks once. Who does not answer is ended, and never answers again.
func (m *farMeter) read() (reading, error) {
	late := time.AfterFunc(dockerTimeout, func() { _ = m.command.Process.Kill() }) // it may have ended
	defer late.Stop()
	var r reading
	_, err := io.WriteString(m.ask, "\n")
	if err == nil {
		err = m.answers.Decode(&r)
	}
	if err == nil && r.Failed != "" {
		err = errors.New(r.Failed)
	}
	if err != nil {
		return r, fmt.Errorf("the clocks of a server on another host: %w", err)
	}
	return r, nil
}

func (m *farMeter) CPU() (time.Duration, error) {
	r, err := m.read()
	return r.CPU, err
}

func (m *farMeter) Kernel() (time.Duration, error) {
	r, err := m.read()
	return r.Kernel, err
}

func (m *farMeter) Resident() (int64, error) {
	r, err := m.read()
	return r.Resident, err
}

func (m *farMeter) Peak() (int64, error) {
	r, err := m.read()
	return r.Peak, err
}

// close ends the process, whether it answers or not.
func (m *farMeter) close() {
	_ = m.ask.Close()
	_ = m.command.Process.Kill() // what it ran in the container ends with the container
	_ = m.command.Wait()         // killed
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-logTailBytes):]
	return len(p), nil
}
