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
		Pod    pods.Spec
		Image  oci.Digest
		Env    map[string]string
		Socket string
		Port   uint16
	}{Pod: s.Pod, Image: s.Image.Digest, Env: s.Env}
	if s.Image.Digest == "" {
		return "", fmt.Errorf("plan service %s: image %s is not pinned by a digest", s.Name, s.Image)
	}
	if b := s.Backend; b != nil {
		compared.Socket, compared.Port = b.EdgeSocket, b.Port
	}
	text, err := json.Marshal(compared) // maps come out sorted
	if err != nil {
		return "", fmt.Errorf("plan service %s: %w", s.Name, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
