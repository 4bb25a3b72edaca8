package builder

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/pkg/compression"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// Compressions are the names that Builder.Compression may have.
var Compressions = []string{"gzip", "zstd", "zstd:chunked"}

// ErrCompression says that a compression is not one of Compressions.
var ErrCompression = errors.New("unknown compression")

// compressor compresses layers, always in the same way.
type compressor struct{ name string }

func newCompressor(name string) (compressor, error) {
	if name == "" {
		name = Compressions[0]
	}
	if !slices.Contains(Compressions, name) {
		return compressor{}, fmt.Errorf("%w %q (there are: %s)", ErrCompression, name, strings.Join(Compressions, ", "))
	}
	return compressor{name: name}, nil
}

// key is the key of a part's record: the same files, compressed otherwise or
// with other times, are other layers.
func (how compressor) key(in cache.Inputs, epoch int64) oci.Digest {
	in = slices.Clone(in)
	in.Add("compression", "%s", how.name)
	in.Add("time", "%d", epoch)
	return in.Key()
}

// blobKey is the key of one compressed tar. No compressor promises the same
// bytes from one version to the next, so this program is part of it.
func (how compressor) blobKey(diffID oci.Digest) oci.Digest {
	var in cache.Inputs
	in.Add("tar", "%s", diffID)
	in.Add("compression", "%s", how.name)
	in.Add("bareboat", "%s", self())
	return in.Key()
}

// compress brings a tar into the cache.
func (how compressor) compress(c *cache.Cache, path string) (oci.Descriptor, error) {
	algorithm, err := compression.AlgorithmByName(how.name)
	if err != nil {
		return oci.Descriptor{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return oci.Descriptor{}, err
	}
	defer f.Close()
	told := map[string]string{}
	d, err := c.Put(func(w io.Writer) error {
		z, err := compression.CompressStreamWithMetadata(w, told, algorithm, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(z, f)
		return errors.Join(err, z.Close())
	})
	d.MediaType = v1.MediaTypeImageLayerGzip
	if how.name != Compressions[0] {
		d.MediaType = v1.MediaTypeImageLayerZstd
	}
	if len(told) > 0 {
		d.Annotations = maps.Clone(told)
	}
	return d, err
}
