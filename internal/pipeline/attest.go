package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"bareboat/builder"
	"bareboat/internal/oci"
)

// attested is where it is noted that all that was to be told of an image hangs
// on it at its registry, where it has the given name: with nothing to push there is then nothing to ask
// either. A push that was interrupted before leaves no note. Empty: nowhere.
func (p *Pipeline) attested(name oci.Reference, d oci.Digest) string {
	cache, err := p.Builder.CacheDir()
	if err != nil {
		return ""
	}
	what := fmt.Sprintf("%s %s %t %t", name.Name(), d, p.Attest.SBOM, p.Attest.Provenance)
	return filepath.Join(cache, "attested", digest.FromString(what).Encoded())
}

// isTold tells whether nothing is left to say of an image.
func (p *Pipeline) isTold(name oci.Reference, d oci.Digest) bool {
	switch {
	case p.Attest.Signer != nil:
		return false // the registry knows which keys have signed
	case !p.Attest.SBOM && !p.Attest.Provenance:
		return true
	}
	_, err := os.Stat(p.attested(name, d))
	return err == nil
}

// tell attaches to an image at its registry what it is made of and how, and
// signs it, as the caller wants it.
func (p *Pipeline) tell(ctx context.Context, d *destination, s source, made builder.Outcome, at oci.Reference, began time.Time) error {
	name := d.name(made.Image.Name, at)
	if p.isTold(name, made.Image.Digest) {
		return nil
	}
	var platforms []string
	for _, b := range made.Images {
		platforms = append(platforms, b.Platform.String())
	}
	if len(platforms) == 0 {
		platforms = []string{builder.HostPlatform().String()}
	}
	facts, err := p.facts(ctx, s.service, platforms)
	if err != nil {
		return err
	}
	facts.Started, facts.Finished, facts.Versions = began, time.Now(), p.Versions
	facts.Parameters = map[string]string{"compression": p.Builder.Compression}
	if p.Builder.Epoch != 0 {
		facts.Parameters["SOURCE_DATE_EPOCH"] = fmt.Sprint(p.Builder.Epoch)
	}
	err = d.steadily(func() (err error) {
		if at, err = d.target(made.Image.Name); err != nil {
			return err
		}
		return d.attest(ctx, made.Image, at, facts, p.Attest)
	})
	if err != nil {
		return err
	}
	return noted(p.attested(name, made.Image.Digest))
}

func noted(path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}
