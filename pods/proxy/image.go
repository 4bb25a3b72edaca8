package proxy

import "embed"

// Image holds the recipe of the edge's image, image.yaml, its lock and the
// files that it names, so that any project can have the edge.
//
//go:embed image.yaml image.lock nginx edge/main.go
var Image embed.FS
