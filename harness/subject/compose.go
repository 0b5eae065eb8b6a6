package subject

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"atlas/harness/host"
)

// ComposeFile describes the containers; it is named from the top of the repository,
// which has to be the working directory.
const ComposeFile = "docker-compose.yml"

// containerStart is a start time-out for containers: docker-compose 1.29 takes two
// seconds of its own.
const containerStart = 60 * time.Second

// What every container of ours is found by.
const (
	project      = "atlas-lab"
	projectLabel = "com.docker.compose.project=" + project
)

// neverAsked is how often a measured container is asked for its health: a probe
// takes time of its core, and the lab knows by the answers.
const neverAsked = "24h"

// What a container may lock in memory (rings are charged to it), in bytes, and how
// many files it may open. A daemon cannot give more than it has, and we are taken to
// have as much.
const (
	memlockWanted = 64 << 20
	filesWanted   = 1 << 16
)

// Compose runs servers as containers of ComposeFile on one engine. They share the
// host's network and see the scratch directory where it is, so that a configuration
// is the same in a container and outside.
type Compose struct {
	engine  Engine
	volume  *volume           // what Carry has taken to another host, nil before that
	command []string          // docker compose, or docker-compose
	top     string            // directory of the file
	images  map[string]string // by service
	asked   map[string]string // what program returned, by service: Start wants it each time
	started int
}

// NewCompose finds the engine, and Compose v2 or else v1. Its error says what is
// missing.
func NewCompose(engine Engine) (*Compose, error) {
	top, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	c := &Compose{engine: engine, top: top, asked: map[string]string{}}
	if _, err := os.Stat(filepath.Join(top, ComposeFile)); err != nil {
		return nil, fmt.Errorf("%s is not here: run this at the top of the repository", ComposeFile)
	}
	if _, err := engine.docker("info", "--format", "{{.ServerVersion}}"); err != nil {
		if engine.Name != "" {
			return nil, fmt.Errorf("docker on %s does not answer (`docker context ls` lists those you have; "+
				"docs/hosts.md says how to make one): %w", engine, err)
		}
		return nil, fmt.Errorf("docker does not answer, is its daemon running? %w", err)
	}
	c.command = append([]string{"docker"}, engine.args("compose")...)
	if _, err := engine.docker("compose", "version"); err != nil {
		old, missing := exec.LookPath("docker-compose")
		if missing != nil {
			return nil, errors.New("neither `docker compose` nor docker-compose is here: " +
				"install the package docker-compose")
		}
		endpoint, err := engine.endpoint()
		if err != nil {
			return nil, err
		}
		c.command = append([]string{old}, endpoint...)
	}
	text, err := c.compose("/tmp", nil, "config").Output()
	if err != nil {
		return nil, fmt.Errorf("%s config: %w", strings.Join(c.command, " "), explained(err))
	}
	var file struct {
		Services map[string]struct{ Image string }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", ComposeFile, err)
	}
	c.images = map[string]string{}
	for name, service := range file.Services {
		c.images[name] = service.Image
	}
	return c, nil
}

// compose is a command of Compose for containers on cores that see scratch.
func (c *Compose) compose(scratch string, cores []int, args ...string) *exec.Cmd {
	argv := append(append([]string{}, c.command[1:]...), "--file", ComposeFile)
	if c.volume != nil {
		argv = append(argv, "--file", hostsFile)
	}
	argv = append(argv, "--project-name", project)
	command := exec.Command(c.command[0], append(argv, args...)...)
	memlock, files := host.Limits()
	command.Dir = c.top // 1.29 looks for the seccomp profile there
	command.Env = append(append(os.Environ(), c.volume.environment()...), "LAB_DIR="+scratch,
		"LAB_USER="+user(),
		fmt.Sprintf("LAB_MEMLOCK=%d", min(memlock, memlockWanted)),
		fmt.Sprintf("LAB_NOFILE=%d", min(files, filesWanted)))
	if len(cores) > 0 {
		command.Env = append(command.Env, "LAB_SERVER_CPUS="+host.List(cores), "LAB_CLIENT_CPUS="+host.List(cores))
	}
	return command
}

// program returns a file that runs the subject's program in its image, to ask it
// what it is.
func (c *Compose) program(s Subject) (string, error) {
	if s.service == "" {
		return "", fmt.Errorf("%s runs as a process of this machine only: leave -launch compose out", s.Name)
	}
	if file, ok := c.asked[s.service]; ok {
		return file, nil
	}
	image := c.images[s.service]
	if _, err := c.engine.docker("image", "inspect", "--format", "{{.Id}}", image); err != nil {
		if c.engine.Name != "" {
			return "", fmt.Errorf("there is no image %s on %s: "+
				"`DOCKER_CONTEXT=%s make images` pulls or builds it there, "+
				"`docker save %[1]s | docker --context %[3]s load` takes it there", image, c.engine, c.engine.Name)
		}
		return "", fmt.Errorf("there is no image %s: `make images` pulls or builds it", image)
	}
	dir := filepath.Join(c.top, "bin", "images", c.engine.Name, s.service)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(dir, s.executable)
	entry := s.executable
	if s.service == "atlas" {
		entry = "/atlas" // an image without PATH's directories
	}
	text := fmt.Sprintf("#!/bin/sh\nexec docker %s --rm --network none --entrypoint %s %s \"$@\"\n",
		strings.Join(c.engine.args("run"), " "), entry, image)
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		return "", err
	}
	c.asked[s.service] = file
	return file, nil
}

// Image is one of a service; ID is Docker's digest of it.
type Image struct{ Service, Name, ID string }

// Images returns those that are here, in the order of their services.
func (c *Compose) Images() (images []Image) {
	for _, service := range slices.Sorted(maps.Keys(c.images)) {
		name := c.images[service]
		if id, err := c.engine.docker("image", "inspect", "--format", "{{.Id}}", name); err == nil {
			images = append(images, Image{service, name, id})
		}
	}
	return images
}

// container is one that compose runs.
type container struct {
	engine Engine
	name   string
}

// start returns the command that runs a subject in a container of its own and lasts
// as long as that.
func (c *Compose) start(s Subject, scratch string, cores []int, args []string) (*exec.Cmd, *container) {
	c.started++
	one := &container{c.engine, fmt.Sprintf("atlas-lab-%s-%d-%d", s.service, os.Getpid(), c.started)}
	argv := []string{"run", "--rm", "--no-deps", "-T", "--name", one.name}
	for _, variable := range s.env {
		argv = append(argv, "-e", variable)
	}
	command := c.compose(scratch, cores, append(append(argv, s.service), args...)...)
	command.Env = append(command.Env, "LAB_HEALTH_EVERY="+neverAsked)
	return command, one
}

// pid is that of the container's first process, in the namespace of this one.
func (c *container) pid() (int, error) {
	text, err := c.engine.docker("inspect", "--format", "{{.State.Pid}}", c.name)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(text)
	if err == nil && pid == 0 {
		err = fmt.Errorf("container %s does not run", c.name)
	}
	return pid, err
}

// removeInterval is how often a container is removed that may not be made yet.
const removeInterval = 100 * time.Millisecond

// stop ends the container and waits for that. It may have ended already, or the
// command that was attached to it, which has exited if that is closed, may be about
// to make it: an interruption meets Compose at its start, too, which takes seconds.
// What appears is removed until the command is gone.
func (c *container) stop(timeout time.Duration, exited <-chan struct{}) {
	_, _ = c.engine.docker("stop", "--time", strconv.Itoa(int(timeout.Seconds())), c.name)
	expired := time.After(dockerTimeout)
	for gone := false; !gone; {
		select {
		case <-exited:
			gone = true
		case <-expired:
			gone = true
		case <-time.After(removeInterval):
		}
		_, _ = c.engine.docker("rm", "--force", c.name) // also after the last look
	}
}
