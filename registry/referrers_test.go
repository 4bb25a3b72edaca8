package registry_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
	"bareboat/registry"
)

const artifactType = "application/vnd.example+json"

// both are registries of either kind, with references below them: one that
// lists referrers by itself, and one that does not.
func both(t *testing.T) map[string]oci.Reference {
	return map[string]oci.Reference{
		"embedded": serve(t, registries["embedded"](t)), "docker-registry": reference(t, dockerRegistry(t)+"/team/chat:1"),
	}
}

func artifact(text string) registry.Artifact {
	return registry.Artifact{
		Type: artifactType, Annotations: map[string]string{"text": text},
		Blobs: []registry.Blob{{MediaType: artifactType, Annotations: map[string]string{"a": "b"}, Data: []byte(text)}},
	}
}

// What is attached is listed and comes back, whatever the registry can do; the
// same again changes nothing.
func TestAttach(t *testing.T) {
	for name, ref := range both(t) {
		t.Run(name, func(t *testing.T) {
			c := client(t)
			dir, digest := writeLayout(t, 1)
			if _, err := c.Push(t.Context(), dir, digest, ref, nil); err != nil {
				t.Fatal(err)
			}
			subject := ref.WithDigest(digest)
			if got := must[[]oci.Descriptor](t)(c.Referrers(t.Context(), subject)); len(got) != 0 {
				t.Errorf("before anything is attached: %v", got)
			}
			d := must[oci.Descriptor](t)(c.Attach(t.Context(), subject, artifact("one")))
			if again := must[oci.Descriptor](t)(c.Attach(t.Context(), subject, artifact("one"))); !reflect.DeepEqual(again, d) {
				t.Errorf("the same again is %v, not %v", again, d)
			}
			must[oci.Descriptor](t)(c.Attach(t.Context(), subject, artifact("two")))
			all := must[[]oci.Descriptor](t)(c.Referrers(t.Context(), subject))
			i := slices.IndexFunc(all, func(o oci.Descriptor) bool { return o.Digest == d.Digest })
			if len(all) != 2 || i < 0 || all[i].ArtifactType != artifactType || all[i].Size != d.Size || all[i].Annotations["text"] != "one" {
				t.Fatalf("referrers are %v", all)
			}
			got := must[registry.Artifact](t)(c.FetchArtifact(t.Context(), ref.WithDigest(d.Digest)))
			want := artifact("one")
			want.Config = &registry.Blob{MediaType: "application/vnd.oci.empty.v1+json", Data: []byte("{}")}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("fetched %+v, want %+v", got, want)
			}
		})
	}
}

// Of writers that attach at the same time none loses.
func TestAttachTogether(t *testing.T) {
	const writers = 8
	for name, ref := range both(t) {
		t.Run(name, func(t *testing.T) {
			c := client(t)
			dir, digest := writeLayout(t, 1)
			if _, err := c.Push(t.Context(), dir, digest, ref, nil); err != nil {
				t.Fatal(err)
			}
			var group errgroup.Group
			for i := range writers {
				group.Go(func() error {
					_, err := c.Attach(t.Context(), ref.WithDigest(digest), artifact(fmt.Sprint(i)))
					return err
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			if all := must[[]oci.Descriptor](t)(c.Referrers(t.Context(), ref.WithDigest(digest))); len(all) != writers {
				t.Errorf("%d of %d are listed", len(all), writers)
			}
		})
	}
}

// A list that goes on at another host would take the credentials there.
func TestReferrersPages(t *testing.T) {
	page := func(w http.ResponseWriter, digest, link string) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		w.Header().Set("Link", link)
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}]}`, digest)
	}
	one, two := oci.Digest("sha256:"+fmt.Sprintf("%064d", 1)), oci.Digest("sha256:"+fmt.Sprintf("%064d", 2))
	next := ""
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Query().Get("n") == "2":
			page(w, two.String(), "")
		default:
			page(w, one.String(), "<"+next+`>; rel="next"`)
		}
	}))
	c := client(t)
	next = "/v2/team/chat/referrers/" + one.String() + "?n=2"
	all, err := c.Referrers(t.Context(), ref.WithDigest(one))
	if err != nil || len(all) != 2 || all[1].Digest != two {
		t.Errorf("two pages gave %v, %v", all, err)
	}
	next = "http://elsewhere.example/?n=2"
	if all, err := c.Referrers(t.Context(), ref.WithDigest(one)); err == nil {
		t.Errorf("a list that goes on elsewhere gave %v", all)
	}
}
