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
		Beside []oci.Digest `json:",omitempty"`
	}{Pod: s.Pod, Image: s.Image.Digest, Env: s.Env}
	for _, side := range s.Sidecars {
		compared.Beside = append(compared.Beside, side.Image.Digest)
	}
	for _, image := range s.images() {
		if image.Digest == "" {
			return "", fmt.Errorf("plan service %s: image %s is not pinned by a digest", s.Name, image)
		}
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

// images are those of all its containers.
func (s Service) images() []oci.Reference {
	list := []oci.Reference{s.Image}
	for _, side := range s.Sidecars {
		list = append(list, side.Image)
	}
	return list
}
