package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/stretchr/testify/require"
)

// atTop changes to the top of the repository.
func atTop(t *testing.T) {
	top, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Chdir(top)
}

// TestComposeFile has the loader of Compose v2 read the file; v1 is run for real.
func TestComposeFile(t *testing.T) {
	atTop(t)
	options, err := cli.NewProjectOptions([]string{ComposeFile}, cli.WithName("atlas-lab"),
		cli.WithEnv([]string{"LAB_DIR=/lab", "LAB_SERVER_CPUS=0", "LAB_CLIENT_CPUS=1", "NGINX_IMAGE=ours:1"}))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	var services []string
	for _, one := range stack {
		services = append(services, one.service)
		service, err := project.GetService(one.service)
		require.NoError(t, err)
		require.Equal(t, "host", service.NetworkMode)
		require.Equal(t, []string{"ALL"}, service.CapDrop)
		require.Contains(t, service.SecurityOpt, "seccomp:./deploy/seccomp-io_uring.json")
		require.Contains(t, service.Ulimits, "memlock")
		require.Contains(t, service.Ulimits, "nofile")
		require.NotEmpty(t, service.CPUSet)
		// The ports and the directories are those that Up writes.
		health := strings.Join(service.HealthCheck.Test, " ")
		require.Contains(t, health, fmt.Sprintf("http://127.0.0.1:%d%s", one.port, stackPath))
		require.Contains(t, strings.Join(service.Command, " "), filepath.Join("/lab", one.service, "config"))
	}
	require.ElementsMatch(t, services, project.ServiceNames())
	nginx, err := project.GetService("nginx")
	require.NoError(t, err)
	require.Equal(t, "ours:1", nginx.Image)
	for _, s := range append(All(), Origins(false)...) {
		if s.service != "" {
			require.True(t, slices.Contains(services, s.service), "%s runs in %q", s.Name, s.service)
		}
	}
}

// TestComposeHostsFile has it read the file for other hosts on top: nothing of this
// host is mounted.
func TestComposeHostsFile(t *testing.T) {
	atTop(t)
	options, err := cli.NewProjectOptions([]string{ComposeFile, hostsFile}, cli.WithName(project),
		cli.WithEnv([]string{"LAB_DIR=/tmp/lab", "LAB_VOLUME=lab-1"}))
	require.NoError(t, err)
	both, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	require.Equal(t, "lab-1", both.Volumes["lab"].Name)
	require.True(t, bool(both.Volumes["lab"].External))
	for _, one := range stack {
		service, err := both.GetService(one.service)
		require.NoError(t, err)
		targets := map[string]string{}
		for _, mount := range service.Volumes {
			require.Equal(t, "volume", mount.Type, "%s: %s", one.service, mount.Target)
			targets[mount.Target] = mount.Source
		}
		require.Equal(t, map[string]string{"/tmp/lab": "lab", "/harness": "lab"}, targets)
	}
}

func TestComposeMissing(t *testing.T) {
	atTop(t)
	t.Run("file", func(t *testing.T) {
		t.Chdir(t.TempDir())
		_, err := NewCompose(Engine{})
		require.ErrorContains(t, err, "at the top of the repository")
	})
	tools := t.TempDir()
	t.Setenv("PATH", tools)
	_, err := NewCompose(Engine{})
	require.ErrorContains(t, err, "docker does not answer")
	docker := filepath.Join(tools, "docker")
	script := func(text string) { require.NoError(t, os.WriteFile(docker, []byte("#!/bin/sh\n"+text+"\n"), 0o755)) }
	script("echo no daemon >&2; exit 1")
	_, err = NewCompose(Engine{})
	require.ErrorContains(t, err, "no daemon")
	_, err = NewCompose(Engine{Name: "far", Address: "198.18.77.2"})
	require.ErrorContains(t, err, "docker on the host of Docker context far does not answer (`docker context ls`")
	require.ErrorContains(t, err, "no daemon")
	script(`[ "$1" = info ]`)
	_, err = NewCompose(Engine{})
	require.ErrorContains(t, err, "install the package docker-compose")
	script(`case "$*" in
*"image "*) echo no such image >&2; exit 1 ;;
*config) echo "services: {nginx: {image: ours}}" ;;
esac`)
	c, err := NewCompose(Engine{})
	require.NoError(t, err)
	_, err = c.program(one(t, "nginx-best"))
	require.ErrorContains(t, err, "there is no image ours: `make images`")
	require.ErrorContains(t, one(t, "go-nethttp").Missing(Programs{Compose: c}), "as a process of this machine only")
	c.engine.Name = "far"
	_, err = c.program(one(t, "nginx-best"))
	require.ErrorContains(t, err, "no image ours on the host of Docker context far: `DOCKER_CONTEXT=far make images`")
	require.ErrorContains(t, c.Carry(t.TempDir(), "harness"), "no image of docker-compose.yml is on the host of Docker context far")
	require.NoError(t, c.Close(), "nothing is there")
	script(`echo "services: ["`)
	_, err = NewCompose(Engine{})
	require.ErrorContains(t, err, ComposeFile)
}

// An interruption may meet Compose before it has made the container.
func TestContainerStoppedBeforeItIsMade(t *testing.T) {
	tools := t.TempDir()
	log := filepath.Join(tools, "log")
	script := "#!/bin/sh\necho \"$*\" >>" + log + "\nexit 1\n"
	require.NoError(t, os.WriteFile(filepath.Join(tools, "docker"), []byte(script), 0o755))
	t.Setenv("PATH", tools)
	removals := func() int {
		text, _ := os.ReadFile(log) // not there yet
		return strings.Count(string(text), "rm --force one\n")
	}
	exited, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		(&container{name: "one"}).stop(time.Second, exited)
		close(stopped)
	}()
	require.Eventually(t, func() bool { return removals() >= 2 }, 20*time.Second, 10*time.Millisecond)
	before := removals()
	close(exited)
	<-stopped
	require.Greater(t, removals(), before, "what the command has made last, too")
}
