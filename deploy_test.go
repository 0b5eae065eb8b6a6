package atlas_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// patience bounds what has to happen; nothing here is measured.
const patience = 30 * time.Second

// scratch has what several tests share.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "atlas-test"); err != nil {
		log.Fatal(err)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch) // the status is of the tests
	os.Exit(status)
}

// builtAtlas is the program as `make build` makes it, once for all tests.
func builtAtlas(t *testing.T) string {
	t.Helper()
	file, err := buildOnce()
	require.NoError(t, err)
	return file
}

var buildOnce = sync.OnceValues(func() (file string, err error) {
	file = filepath.Join(scratch, "atlas")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, "./proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// An image that has nothing but the program in it has no loader either, and no
// libraries.
func TestBinaryIsStatic(t *testing.T) {
	file, err := elf.Open(builtAtlas(t))
	var format *elf.FormatError
	if errors.As(err, &format) {
		t.Log("this system has other executables")
		return
	}
	require.NoError(t, err)
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	require.NoError(t, err)
	assert.Empty(t, libraries)
	for _, program := range file.Progs {
		assert.NotEqual(t, elf.PT_INTERP, program.Type, "it wants a loader")
	}
}

// said is what a process has printed, to be read while it goes on.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

var listeningAt = regexp.MustCompile(`msg=listening address=(\S+)`)

// runExample runs a file of deploy/examples with its variables set, and returns
// its address. It has to end in order.
func runExample(t *testing.T, atlas, name string, variables ...string) (address string) {
	t.Helper()
	var log said
	cmd := exec.Command(atlas, filepath.Join("deploy", "examples", name))
	cmd.Env = append(os.Environ(), append(variables, "ADDRESS=127.0.0.1", "PORT=0")...)
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, and then exited says so
		select {
		case err := <-exited:
			assert.NoError(t, err, log.String())
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Errorf("it does not end: %s", log.String())
		}
	})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if found := listeningAt.FindStringSubmatch(log.String()); found != nil {
			return found[1]
		}
		if len(exited) > 0 {
			break
		}
	}
	t.Fatalf("it does not listen: %s", log.String())
	return ""
}

// application is an upstream that says its name, and the variable of its port.
func application(t *testing.T, variable, name string) (setting string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	return variable + "=" + port
}

func ask(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(body))
	return string(body)
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T, cert, key string) (trusted *x509.CertPool) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &secret.PublicKey, secret)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(secret)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(cert, text, 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	trusted = x509.NewCertPool()
	require.True(t, trusted.AppendCertsFromPEM(text))
	return trusted
}

// Every example does what it says, as it stands there.
func TestExamples(t *testing.T) {
	atlas := builtAtlas(t)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	tests := map[string]func(t *testing.T, name string){
		"static.toml": func(t *testing.T, name string) {
			root := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(root, "index.html"), []byte("<p>hello"), 0o644))
			assert.Equal(t, "<p>hello", ask(t, client, "http://"+runExample(t, atlas, name, "ROOT="+root)))
		},
		"reverse-proxy.toml": func(t *testing.T, name string) {
			address := runExample(t, atlas, name, application(t, "APP_PORT", "app"))
			assert.Equal(t, "app", ask(t, client, "http://"+address))
		},
		"tls.toml": func(t *testing.T, name string) {
			cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
			trusted := selfSigned(t, cert, key)
			address := runExample(t, atlas, name, "CERT="+cert, "KEY="+key, application(t, "APP_PORT", "app"))
			secure := &http.Client{Timeout: patience, Transport: &http.Transport{
				DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted},
			}}
			assert.Equal(t, "app", ask(t, secure, "https://"+address))
		},
		"load-balancing.toml": func(t *testing.T, name string) {
			address := runExample(t, atlas, name, application(t, "APP1_PORT", "one"), application(t, "APP2_PORT", "two"),
				application(t, "APP3_PORT", "three"))
			reached := make(map[string]int)
			for range 40 {
				reached[ask(t, client, "http://"+address)]++
			}
			assert.Len(t, reached, 3)
			assert.Greater(t, reached["three"], reached["one"])
		},
	}
	files, err := os.ReadDir("deploy/examples")
	require.NoError(t, err)
	assert.Len(t, files, len(tests))
	for _, file := range files {
		t.Run(file.Name(), func(t *testing.T) {
			require.Contains(t, tests, file.Name(), "an example that nothing runs")
			tests[file.Name()](t, file.Name())
		})
	}
}

// systemd understands the units, and finds little that the service may do.
func TestSystemdUnits(t *testing.T) {
	text, err := os.ReadFile("deploy/atlas.service")
	require.NoError(t, err)
	for _, line := range []string{
		"Type=notify", "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "RuntimeDirectory=atlas",
		"CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "RestartPreventExitStatus=2",
	} {
		assert.Contains(t, string(text), "\n"+line+"\n")
	}
	assert.Regexp(t, `(?m)^SystemCallFilter=.* io_uring_setup io_uring_enter io_uring_register$`, string(text))
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd is not installed: its own checks are left out")
		return
	}
	dir := t.TempDir()
	// It looks whether the program is there.
	there := strings.ReplaceAll(string(text), "/usr/local/bin/atlas", "/bin/true")
	service, socket := filepath.Join(dir, "atlas.service"), filepath.Join(dir, "atlas.socket")
	require.NoError(t, os.WriteFile(service, []byte(there), 0o644))
	text, err = os.ReadFile("deploy/atlas.socket")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(socket, text, 0o644))
	out, err := exec.Command(analyze, "verify", "--man=no", service, socket).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Empty(t, string(out), "it says something only where it does not understand")
	out, err = exec.Command(analyze, "security", "--offline=yes", "--no-pager", service).CombinedOutput()
	require.NoError(t, err, "%s", out)
	exposure := regexp.MustCompile(`exposure level for atlas.service: (\d+\.\d)`).FindSubmatch(out)
	require.NotNil(t, exposure, "%s", out)
	level, err := strconv.ParseFloat(string(exposure[1]), 64)
	require.NoError(t, err)
	assert.Less(t, level, 2.5, "of 10")
}

// The profile is one that Docker reads, names what has to be denied, and nothing
// that Atlas needs.
func TestSeccompProfile(t *testing.T) {
	text, err := os.ReadFile("deploy/seccomp-io_uring.json")
	require.NoError(t, err)
	var profile struct {
		DefaultAction string
		ArchMap       []struct {
			Architecture     string
			SubArchitectures []string
		}
		Syscalls []struct {
			Names   []string
			Action  string
			Comment string
			Args    []struct {
				Index           uint
				Value, ValueTwo uint64
				Op              string
			}
			ErrnoRet *uint
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&profile))
	assert.Equal(t, "SCMP_ACT_ALLOW", profile.DefaultAction)
	denied := make(map[string]int)
	for _, rule := range profile.Syscalls {
		assert.Equal(t, "SCMP_ACT_ERRNO", rule.Action)
		assert.NotEmpty(t, rule.Comment)
		for _, name := range rule.Names {
			denied[name]++
		}
	}
	for _, name := range []string{"mount", "ptrace", "bpf", "kexec_load", "init_module", "setns", "unshare", "clone3"} {
		assert.Contains(t, denied, name)
	}
	for _, name := range []string{"io_uring_setup", "io_uring_enter", "io_uring_register", "openat2", "sched_setaffinity"} {
		assert.NotContains(t, denied, name)
	}
}

// What Kubernetes is told fits together, and the configuration in it is a good one.
func TestKubernetes(t *testing.T) {
	text, err := os.ReadFile("deploy/kubernetes.yaml")
	require.NoError(t, err)
	type object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name   string
			Labels map[string]string
		}
		Data map[string]string
		Spec map[string]any
	}
	objects := make(map[string]object)
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := decoder.Decode(&o)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		objects[o.APIVersion+" "+o.Kind] = o
	}
	require.Contains(t, objects, "apps/v1 Deployment")
	spec := objects["apps/v1 Deployment"].Spec
	template := spec["template"].(map[string]any)
	labels := template["metadata"].(map[string]any)["labels"]
	assert.Equal(t, spec["selector"].(map[string]any)["matchLabels"], labels)
	assert.Equal(t, objects["v1 Service"].Spec["selector"], labels)
	pod := template["spec"].(map[string]any)
	container := pod["containers"].([]any)[0].(map[string]any)
	ports := make(map[any]any)
	for _, port := range container["ports"].([]any) {
		ports[port.(map[string]any)["name"]] = port.(map[string]any)["containerPort"]
	}
	for probe, path := range map[string]string{"readinessProbe": "/readyz", "livenessProbe": "/healthz"} {
		get := container[probe].(map[string]any)["httpGet"].(map[string]any)
		assert.Equal(t, path, get["path"])
		assert.Contains(t, ports, get["port"])
	}
	assert.Equal(t, false, container["securityContext"].(map[string]any)["allowPrivilegeEscalation"])
	assert.Equal(t, true, pod["securityContext"].(map[string]any)["runAsNonRoot"])
	volume := pod["volumes"].([]any)[0].(map[string]any)["configMap"].(map[string]any)["name"]
	assert.Equal(t, objects["v1 ConfigMap"].Metadata.Name, volume)

	cfg := objects["v1 ConfigMap"].Data["atlas.toml"]
	assert.Contains(t, cfg, fmt.Sprintf("port = %d\n", ports["http"]))
	assert.Contains(t, cfg, fmt.Sprintf(":%d\"", ports["admin"]))
	file := filepath.Join(t.TempDir(), "atlas.toml")
	require.NoError(t, os.WriteFile(file, []byte(cfg), 0o644))
	out, err := exec.Command(builtAtlas(t), "check", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	var wait time.Duration
	for _, key := range []string{"drain_delay", "drain"} {
		found := regexp.MustCompile(key + ` = "(\w+)"`).FindStringSubmatch(cfg)
		require.NotNil(t, found, key)
		d, err := time.ParseDuration(found[1])
		require.NoError(t, err)
		wait += d
	}
	assert.Less(t, wait.Seconds(), float64(pod["terminationGracePeriodSeconds"].(int)), "it would be killed first")
}
