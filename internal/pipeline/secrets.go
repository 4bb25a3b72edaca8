package pipeline

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/argon2"

	"bareboat/internal/config"
	"bareboat/pods/release"
)

// A secret's name carries a hash of its content, so that another content is
// another secret, and old pods keep theirs. The name is no secret: the hash is
// one that is slow to guess by, with the parameters that RFC 9106 names for
// little memory.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	argonBytes   = 6
)

// maxSecret is Podman's limit, in bytes.
const maxSecret = 512_000

// secrets reads the project's secrets and configs, which Podman keeps alike, and
// names each. Those of somebody else's keep their names.
func (p *Pipeline) secrets() (list []release.Secret, named map[string]string, err error) {
	named = map[string]string{}
	for _, source := range p.Project.Sources {
		name := source.External
		if name == "" {
			data, err := p.content(source)
			if err != nil {
				return nil, nil, err
			}
			name = secretName(p.Project.Name, source, data)
			list = append(list, release.Secret{Name: name, Data: data})
		}
		named[source.Kind+" "+source.Key] = name
	}
	return list, named, nil
}

func secretName(project string, s config.Source, data []byte) string {
	salt := []byte("bareboat " + project + " " + s.Kind + " " + s.Key)
	sum := argon2.IDKey(data, salt, argonTime, argonMemory, argonThreads, argonBytes)
	return project + "_" + s.Key + "_" + hex.EncodeToString(sum)
}

func (p *Pipeline) content(s config.Source) ([]byte, error) {
	key := s.Kind + "s." + s.Key
	data := []byte(s.Content)
	if s.File != "" {
		var err error
		if data, err = os.ReadFile(s.File); err != nil {
			return nil, p.fault("", key+".file", err)
		}
	}
	switch {
	case len(data) == 0 && s.Variable != "":
		return nil, p.fault("", key+".environment", fmt.Errorf("variable %s is not set, or empty", s.Variable))
	case len(data) == 0:
		return nil, p.fault("", key, errors.New("is empty, which Podman does not take"))
	case len(data) > maxSecret:
		return nil, p.fault("", key, fmt.Errorf("has %d bytes, more than the %d that Podman takes", len(data), maxSecret))
	}
	return data, nil
}
