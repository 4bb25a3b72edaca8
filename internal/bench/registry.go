package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registry is a docker-registry process. Its own one is nobody's home ground.
type registry struct {
	url *url.URL
	cmd *exec.Cmd
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

func startRegistry(dir string) (*registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:0\"}\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	cmd.Env = []string{"OTEL_TRACES_EXPORTER=none"}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &registry{cmd: cmd}
	said := bufio.NewReader(stderr)
	var log bytes.Buffer
	for r.url == nil {
		line, err := said.ReadString('\n')
		log.WriteString(line)
		if m := listening.FindStringSubmatch(line); m != nil {
			r.url = &url.URL{Scheme: "http", Host: m[1]}
		} else if err != nil {
			r.stop()
			return nil, fmt.Errorf("docker-registry does not serve: %s", log.String())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, said) }() // else it would block when the pipe is full
	return r, nil
}

func (r *registry) stop() {
	if r == nil || r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGKILL) // its files are thrown away
	_ = r.cmd.Wait()
	r.cmd = nil
}

// pushBase pushes an image with no layers, which ko builds upon.
func pushBase(ctx context.Context, ref string) error {
	tag, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: goarch, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
	})
	if err != nil {
		return err
	}
	return remote.Write(tag, base, remote.WithContext(ctx))
}

// headManifest asks the registry itself for the digest of the tag latest.
func headManifest(ctx context.Context, registry *url.URL, repository string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, registry.JoinPath("v2", repository, "manifests/latest").String(), nil)
	if err != nil {
		return "", err
	}
	req.Header["Accept"] = []string{
		"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	res.Body.Close()
	digest := res.Header.Get("Docker-Content-Digest")
	if res.StatusCode != http.StatusOK || digest == "" {
		return "", errors.New(repository + ": what was pushed is not in the registry: " + res.Status)
	}
	return digest, nil
}
