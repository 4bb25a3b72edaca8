//go:build !cgo

package builder

// Without cgo the program would call itself for ever: containers/storage
// enters the user namespace in a C constructor.
var _ = builder_needs_CGO_ENABLED_1
