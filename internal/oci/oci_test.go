package oci_test

import (
	"errors"
	"testing"

	"bareboat/internal/oci"
)

func TestParseReference(t *testing.T) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, c := range []struct{ in, want, local string }{
		{"nginx", "docker.io/library/nginx", "localhost/nginx"},
		{"team/chat:1.2", "docker.io/team/chat:1.2", "localhost/team/chat:1.2"},
		{"localhost/chat", "localhost/chat", "localhost/chat"},
		{"127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"},
		{"quay.io/a@" + sum, "quay.io/a@" + sum, "quay.io/a@" + sum},
	} {
		got, err := oci.ParseReference(c.in)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseReference(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
		got, err = oci.ParseLocal(c.in)
		if err != nil || got.String() != c.local {
			t.Errorf("ParseLocal(%q) = %q, %v; want %q", c.in, got, err, c.local)
		}
	}
	for _, in := range []string{"", "docker.io/UPPER", "a:b:c", "x@sha256:12", "-/a"} {
		if got, err := oci.ParseReference(in); !errors.Is(err, oci.ErrReference) {
			t.Errorf("ParseReference(%q) = %v, %v; want ErrReference", in, got, err)
		}
	}
}

func TestAt(t *testing.T) {
	r, err := oci.ParseLocal("team/chat:1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.At("nexus.example:8082/docker/")
	if err != nil || got.String() != "nexus.example:8082/docker/team/chat:1" {
		t.Errorf("At = %q, %v", got, err)
	}
	if got, err := r.At("nexus"); !errors.Is(err, oci.ErrReference) {
		t.Errorf("At(nexus) = %v, %v; want ErrReference", got, err)
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("localhost/team/chat:1")
	f.Add("a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := oci.ParseReference(s)
		if err != nil {
			return
		}
		again, err := oci.ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q parses to %q, that to %q, %v", s, r, again, err)
		}
	})
}
