package subject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"atlas/harness/host"
)

// hostsFile goes on top of ComposeFile where the containers are another host's.
const hostsFile = "deploy/compose-hosts.yml"

// carryTimeout bounds how long files may take to another host.
const carryTimeout = 10 * time.Minute

// reachTries is how often another host is asked whether it reaches the origin.
const reachTries = 3

// volume is the scratch directory as another host has it: a volume of its engine,
// filled through a container that never runs, and seen by servers at the same path.
// Configurations so are the same there and here.
type volume struct {
	engine  Engine
	name    string // of the volume and of the container
	scratch string
	image   string // of tools: any does, as they bring their program
}

// Carry takes the scratch directory, with harness in it, to the host of c. On
// this machine that is nothing. Close undoes it.
func (c *Compose) Carry(scratch, harness string) error {
	if c.engine.Name == "" {
		return nil
	}
	images := c.Images()
	if len(images) == 0 {
		return fmt.Errorf("no image of %s is on %s: `DOCKER_CONTEXT=%s make images`, "+
			"or `docker save IMAGES | docker --context %[3]s load`", ComposeFile, c.engine, c.engine.Name)
	}
	v := &volume{engine: c.engine, name: filepath.Base(scratch), scratch: scratch, image: images[0].Name}
	c.volume = v
	if _, err := v.engine.docker("volume", "create", "--label", projectLabel, v.name); err != nil {
		return err
	}
	_, err := v.engine.docker("create", "--label", projectLabel, "--name", v.name, "--network", "none",
		"--volume", v.name+":"+scratch, "--entrypoint", v.tool(), v.image)
	if err != nil {
		return err
	}
	if err := v.copy(scratch+"/.", scratch); err != nil {
		return err
	}
	return v.copy(harness, v.tool())
}

// tool is the path of the harness in the volume.
func (v *volume) tool() string { return filepath.Join(v.scratch, "harness") }

// copy takes a file or a directory there. Owners and modes stay.
func (v *volume) copy(from, to string) error {
	ctx, cancel := context.WithTimeout(context.Background(), carryTimeout)
	defer cancel()
	if _, err := exec.CommandContext(ctx, "docker", v.engine.args("cp", from, v.name+":"+to)...).Output(); err != nil {
		return fmt.Errorf("docker cp to %s: %w", v.engine, explained(err))
	}
	return nil
}

// carry takes one directory of the scratch directory there.
func (v *volume) carry(dir string) error {
	if v == nil {
		return nil
	}
	return v.copy(dir, filepath.Dir(dir))
}

// Close removes what Carry left on the other host.
func (c *Compose) Close() error {
	v := c.volume
	if v == nil {
		return nil
	}
	c.volume = nil
	_, gone := v.engine.docker("rm", "--force", v.name)
	_, err := v.engine.docker("volume", "rm", "--force", v.name)
	if err = errors.Join(gone, err); err != nil {
		return fmt.Errorf("%s keeps the volume %s: %w", v.engine, v.name, err)
	}
	return nil
}

// run has the other host run the harness, on all cores, and returns what it says.
func (v *volume) run(args ...string) (string, error) {
	top, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return v.engine.docker(append([]string{"run", "--rm", "--label", projectLabel, "--network", "host",
		"--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
		"--security-opt", "seccomp=" + filepath.Join(top, "deploy/seccomp-io_uring.json"),
		"--user", user(), "--volume", v.name + ":" + v.scratch, "--entrypoint", v.tool(), v.image}, args...)...)
}

// Report asks the host of c, where that is another one, what it is, and whether
// the engine's address is its own.
func (c *Compose) Report() (*host.Report, error) {
	if c.volume == nil {
		return nil, nil
	}
	text, err := c.volume.run("report", "-listen", c.engine.Address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.engine, err)
	}
	var r host.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("what %s says of itself: %w", c.engine, err)
	}
	return &r, nil
}

// Reaches says whether the host of c has an answer of 200 from url.
func (c *Compose) Reaches(url string) error {
	if c.volume == nil {
		return nil
	}
	var err error
	for range reachTries { // a busy host may need more time than a probe has
		if _, err = c.volume.run("probe", url); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%s has no answer of the origin, whose address is -origin-host: %w", c.engine, err)
	}
	return nil
}

// meterOf starts a process in a container that reads the clocks of the others, as
// they are only known to their kernel.
func (v *volume) meterOf(container string) (*farMeter, error) {
	command := exec.Command("docker", v.engine.args("exec", "-i", container, v.tool(), "meter")...)
	return newFarMeter(command)
}

// environment is what hostsFile asks for.
func (v *volume) environment() []string {
	if v == nil {
		return nil
	}
	return []string{"LAB_VOLUME=" + v.name}
}

// user is us, as Docker wants it.
func user() string {
	return strings.Join([]string{fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid())}, ":")
}
