package registry

import (
	"context"
	"errors"

	"bareboat/internal/oci"
)

// Has tells whether ref names d already.
func (c *Client) Has(ctx context.Context, ref oci.Reference, d oci.Digest) (bool, error) {
	found, err := c.Resolve(ctx, ref)
	var e *Error
	if errors.As(err, &e) && e.Kind == NotFound {
		return false, nil
	}
	return found.Digest == d, err
}

// Missing is replaced.
func (c *Client) Missing(ctx context.Context, layoutDir string, d oci.Digest, ref oci.Reference) ([]oci.Descriptor, error) {
	return nil, nil
}
