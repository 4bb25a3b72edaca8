package builder

import (
	"context"
	"errors"
	"testing"

	"bareboat/builder/cache"
	"bareboat/builder/layer"
)

// Two images share a layer, and the build of the one that makes it ends: the
// other one makes it then, and does not end with it.
func TestSharedPartOutlivesItsMaker(t *testing.T) {
	b := &Builder{Cache: t.TempDir()}
	c, err := b.cached()
	if err != nil {
		t.Fatal(err)
	}
	how, err := newCompressor("")
	if err != nil {
		t.Fatal(err)
	}
	quiet := func(string, string, ...any) {}
	for i := range 20 {
		j := &job{Builder: b, cache: c, how: how, tell: quiet, warn: quiet}
		begun, joining := make(chan struct{}), make(chan struct{})
		inputs := func(context.Context) (cache.Inputs, error) {
			var in cache.Inputs
			in.Add("round", "%d", i)
			return in, nil
		}
		first := &part{name: "shared", platform: HostPlatform(), inputs: inputs, layers: func(ctx context.Context, _ string) ([]layer.Layer, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		second := &part{name: "shared", platform: HostPlatform(), layers: func(context.Context, string) ([]layer.Layer, error) {
			return []layer.Layer{{Name: "shared", Files: []layer.File{layer.Bytes("a", 0o644, []byte{byte(i)})}}}, nil
		}}
		second.inputs = func(ctx context.Context) (cache.Inputs, error) {
			select {
			case <-joining:
			default:
				close(joining)
			}
			return inputs(ctx)
		}
		ctx, end := context.WithCancel(t.Context())
		ended, made := make(chan error, 1), make(chan error, 1)
		work := t.TempDir()
		go func() { _, err := j.part(ctx, first, work); ended <- err }()
		<-begun
		go func() { _, err := j.part(t.Context(), second, work); made <- err }()
		<-joining
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("the first: %v", err)
		}
		if err := <-made; err != nil {
			t.Fatalf("round %d: the second ends with the first: %v", i, err)
		}
	}
}
