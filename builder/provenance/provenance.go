// Package provenance writes how an image was made as an in-toto statement with
// SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance).
//
// A statement says something, its predicate, of subjects that digests name. The
// predicate here has two halves: the build's definition, which is what the image
// is a function of, and the run's details, which are who ran it and when.
//
// The types are written out here since the modules that have them do not fit:
// in-toto/attestation's are protocol buffers, whose JSON is not the same twice,
// and in-toto-golang's spell a field otherwise than the specification.
package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"bareboat/internal/oci"
)

const (
	// MediaType is that of a statement.
	MediaType = "application/vnd.in-toto+json"
	// PredicateType is the type of statements that tell an image's provenance.
	PredicateType = "https://slsa.dev/provenance/v1"
	// BuildType says how to read the build's definition: docs/trust.md.
	BuildType = "urn:bareboat:recipe:v1"
	// BuilderID is who built it, where no other is told: bareboat, run by whoever
	// signs.
	BuilderID = "urn:bareboat:builder"

	statementType = "https://in-toto.io/Statement/v1"
)

// Facts are what is known of a build.
type Facts struct {
	// Subjects are the digests of the manifests that came of it: of an image, or
	// of an index and its images.
	Subjects []oci.Digest
	Name     string // of the image, for people
	Recipe   string // path of the recipe below the source's root
	Service  string // of the Compose file; may be empty
	// Platforms are those that were asked for, as OS/ARCHITECTURE[/VARIANT].
	Platforms []string
	Source    Source
	// Parameters are other choices of the caller's that make a difference.
	Parameters map[string]string
	// Internal are the builder's own settings, for those who look for a fault.
	Internal map[string]string

	Toolchain string // of Go, as go version has it: go1.26.8
	Base      string // reference of the base image with its digest; empty: scratch
	Packages  []Package

	Builder  string            // URI; empty: BuilderID
	Versions map[string]string // of the builder and its parts
	// Invocation names this run where somebody keeps a log of it.
	Invocation        string
	Started, Finished time.Time
}

// Package is a Debian package that went into the image.
type Package struct{ Name, Version, Architecture, SHA256 string }

// Statement is what a statement says.
type Statement struct {
	Type          string               `json:"_type"`
	Subject       []ResourceDescriptor `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     Predicate            `json:"predicate"`
}

// Predicate is SLSA's provenance.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition is what the image is a function of.
type BuildDefinition struct {
	BuildType            string               `json:"buildType"`
	ExternalParameters   External             `json:"externalParameters"`
	InternalParameters   map[string]string    `json:"internalParameters,omitempty"`
	ResolvedDependencies []ResourceDescriptor `json:"resolvedDependencies,omitempty"`
}

// External are the parameters that whoever asked for the build has chosen.
type External struct {
	Recipe     string            `json:"recipe"`
	Service    string            `json:"service,omitempty"`
	Platforms  []string          `json:"platforms,omitempty"`
	Source     string            `json:"source,omitempty"` // the repository
	Parameters map[string]string `json:"parameters,omitempty"`
}

// RunDetails are who ran the build, and when.
type RunDetails struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder is who ran the build.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Metadata is about this run.
type Metadata struct {
	InvocationID string     `json:"invocationId,omitempty"`
	StartedOn    *time.Time `json:"startedOn,omitempty"`
	FinishedOn   *time.Time `json:"finishedOn,omitempty"`
}

// ResourceDescriptor names something, by digest where it has one
// (https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md).
type ResourceDescriptor struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// New writes the statement about a build, the same for the same facts.
func New(f Facts) ([]byte, error) {
	if len(f.Subjects) == 0 {
		return nil, errors.New("provenance: of no image")
	}
	dependencies, err := f.dependencies()
	if err != nil {
		return nil, err
	}
	s := Statement{Type: statementType, PredicateType: PredicateType, Predicate: Predicate{
		BuildDefinition: BuildDefinition{
			BuildType: BuildType,
			ExternalParameters: External{
				Recipe: f.Recipe, Service: f.Service, Platforms: f.Platforms, Source: f.Source.Repository, Parameters: f.Parameters,
			},
			InternalParameters: f.Internal, ResolvedDependencies: dependencies,
		},
		RunDetails: RunDetails{
			Builder:  Builder{ID: BuilderID, Version: f.Versions},
			Metadata: Metadata{InvocationID: f.Invocation, StartedOn: moment(f.Started), FinishedOn: moment(f.Finished)},
		},
	}}
	if f.Builder != "" {
		s.Predicate.RunDetails.Builder.ID = f.Builder
	}
	for _, d := range f.Subjects {
		s.Subject = append(s.Subject, ResourceDescriptor{Name: f.Name, Digest: digestSet(d)})
	}
	return json.Marshal(s)
}

// moment is a time as the statement has it: to the second, in UTC.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func digestSet(d oci.Digest) map[string]string {
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

func (f Facts) dependencies() ([]ResourceDescriptor, error) {
	var out []ResourceDescriptor
	if f.Source.Revision != "" {
		out = append(out, f.Source.descriptor())
	}
	if f.Toolchain != "" {
		out = append(out, ResourceDescriptor{Name: "go", URI: "pkg:generic/go@" + f.Toolchain})
	}
	if f.Base != "" {
		base, err := oci.ParseReference(f.Base)
		if err != nil {
			return nil, fmt.Errorf("provenance: base image: %w", err)
		}
		d := ResourceDescriptor{Name: base.Name(), URI: "docker://" + base.String()}
		if base.Digest != "" {
			d.Digest = digestSet(base.Digest)
		}
		out = append(out, d)
	}
	for _, p := range f.Packages {
		out = append(out, ResourceDescriptor{
			Name:   p.Name,
			URI:    fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", p.Name, escape(p.Version), p.Architecture),
			Digest: map[string]string{"sha256": p.SHA256},
		})
	}
	return out, nil
}

// SameBuild tells whether two statements define the same build: they may differ
// in who ran it and when. Text that is no such statement is the same as nothing.
func SameBuild(a, b []byte) bool {
	one, ok := definition(a)
	other, there := definition(b)
	return ok && there && one == other
}

func definition(text []byte) (string, bool) {
	var s struct {
		PredicateType string `json:"predicateType"`
		Predicate     struct {
			BuildDefinition json.RawMessage `json:"buildDefinition"`
		} `json:"predicate"`
		Subject json.RawMessage `json:"subject"`
	}
	if err := json.Unmarshal(text, &s); err != nil || s.PredicateType != PredicateType {
		return "", false
	}
	return string(s.Predicate.BuildDefinition) + string(s.Subject), true
}
