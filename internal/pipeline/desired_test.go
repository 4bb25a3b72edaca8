package pipeline_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/internal/pipeline"
	"bareboat/pods"
	"bareboat/pods/release"
)

var update = flag.Bool("update", false, "write what the tests get as what they want")

// pinned gives every service of a project an image of a registry here.
func pinned(t *testing.T, p *config.Project) []pipeline.Image {
	t.Helper()
	var images []pipeline.Image
	for i, s := range p.Services {
		digest := oci.Digest("sha256:" + strings.Repeat(string("0123456789abcdef"[i]), 64))
		at, err := s.Image.At("127.0.0.1:5000")
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, pipeline.Image{Service: s.Name, Ref: at.WithDigest(digest), Digest: digest})
	}
	return images
}

var told = pods.Mount{Kind: pods.MountBind, Source: "/state/edge", Target: "/etc/edge", ReadOnly: true}

// The example of all keys, as the release sees it.
func TestDesired(t *testing.T) {
	p, err := config.Load(t.Context(), config.Options{Files: []string{"../config/testdata/compose.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := pipeline.Desired(p, pinned(t, p), "abc", told, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	e := json.NewEncoder(&got)
	e.SetIndent("", "\t")
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "desired.json")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("desired is\n%s\nwant %s (-update writes it)", got.Bytes(), golden)
	}
}

func TestDesiredService(t *testing.T) {
	image := oci.Reference{Registry: "quay.io", Repository: "x", Tag: "1"}
	for _, c := range []struct {
		name    string
		service config.Service
		check   func(release.Service) any
		want    any
	}{
		{"a worker starts first", config.Service{NetworkMode: config.NetworkBridge}, stopFirst, false},
		{"a fixed port of the host", config.Service{Ports: []config.Port{{Host: 53, Container: 53}}}, stopFirst, true},
		{"a port that Podman chooses", config.Service{Ports: []config.Port{{Container: 53}}}, stopFirst, false},
		{"the host's network", config.Service{NetworkMode: config.NetworkHost}, stopFirst, true},
		{"a backend on the host's network", config.Service{NetworkMode: config.NetworkHost, Listen: &config.Listen{Socket: "/a/{release}"}}, stopFirst, false},
		{"as the file says", config.Service{NetworkMode: config.NetworkHost, Order: config.OrderStartFirst}, stopFirst, false},
		{"as the file says", config.Service{Order: config.OrderStopFirst}, stopFirst, true},
		{"the edge, which hands its port over", config.Service{Edge: &config.Edge{Port: 1}, NetworkMode: config.NetworkHost}, stopFirst, false},
		{"an edge that cannot", config.Service{Edge: &config.Edge{Port: 1}, Order: config.OrderStopFirst}, stopFirst, true},
		{"the edge is told", config.Service{Edge: &config.Edge{Port: 1}}, mounts, []pods.Mount{told}},
		{"others are not", config.Service{}, mounts, []pods.Mount(nil)},
		{
			"aliases of all networks, once",
			config.Service{Networks: []config.Attachment{{Network: "a", Aliases: []string{"x", "y"}}, {Network: "b", Aliases: []string{"x"}}}},
			func(s release.Service) any { return s.Pod.Network },
			pods.Network{Names: []string{"a", "b"}, Alias: []string{"x", "y"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.service.Name, c.service.Image = "x", image
			p := &config.Project{Name: "shop", Services: []config.Service{c.service}}
			d, err := pipeline.Desired(p, pinned(t, p), "", told, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.check(d.Services[0]); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

func stopFirst(s release.Service) any { return s.StopFirst }

func mounts(s release.Service) any { return s.Pod.Containers[0].Mounts }

func TestDesiredLeavesOut(t *testing.T) {
	p := &config.Project{
		Name:     "shop",
		Volumes:  []config.Volume{{Name: "theirs", External: true}, {Name: "ours"}},
		Networks: []config.Network{{Name: "theirs", External: true}, {Name: "ours", Internal: true}},
		Services: []config.Service{{Name: "x", Image: oci.Reference{Registry: "quay.io", Repository: "x", Tag: "1"}}},
	}
	images := pinned(t, p)
	images[0].Ref.Registry = "quay.io"
	d, err := pipeline.Desired(p, images, "", told, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Volumes) != 1 || d.Volumes[0].Name != "ours" || len(d.Networks) != 1 || !d.Networks[0].Internal {
		t.Errorf("volumes %v, networks %v", d.Volumes, d.Networks)
	}
	if d.Services[0].Insecure {
		t.Error("quay.io is taken for a registry without TLS")
	}
	images[0].Insecure = true
	if d, err = pipeline.Desired(p, images, "", told, nil); err != nil || !d.Services[0].Insecure {
		t.Errorf("a registry that may go without TLS: %+v, %v", d.Services, err)
	}
	if _, err := pipeline.Desired(p, nil, "", told, nil); err == nil || err.Error() != "plan service x: its image quay.io/x:1 is not resolved" {
		t.Errorf("without an image: %v", err)
	}
}
