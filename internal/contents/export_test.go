package contents

import (
	"context"
	"io"
)

// ReadLayer lets the fuzz test reach the reader of layers.
func ReadLayer(ctx context.Context, r io.Reader) (map[string]File, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	e, err := readTar(ctx, plain)
	if err != nil {
		return nil, err
	}
	i := Image{Files: map[string]File{}, Layers: []Layer{{}}}
	i.lay(0, e, map[string]facts{})
	return i.Files, nil
}
