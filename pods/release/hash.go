package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"bareboat/internal/oci"
	"bareboat/pods"
)

// hash tells services apart by what makes their pods differ: the configuration,
// with the image by its digest alone. Which requests a backend gets is not in
// it, since that is the edge's affair and needs no new pod.
func (s Service) hash() (string, error) {
	compared := struct {
		Pod            pods.Spec
		Image          oci.Digest
		Socket, Edge   string
		Port           uint16
		ListenVariable string
	}{Pod: s.Pod, Image: s.Image.Digest}
	if s.Image.Digest == "" {
		return "", fmt.Errorf("plan service %s: image %s is not pinned by a digest", s.Name, s.Image)
	}
	if b := s.Backend; b != nil {
		compared.Socket, compared.Edge, compared.Port, compared.ListenVariable = b.Socket, b.EdgeSocket, b.Port, b.Env
	}
	text, err := json.Marshal(compared) // maps come out sorted
	if err != nil {
		return "", fmt.Errorf("plan service %s: %w", s.Name, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
