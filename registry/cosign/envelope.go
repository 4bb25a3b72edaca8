package cosign

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"bareboat/internal/oci"
)

// envelopeKey is a key as the envelope's library asks for it. The key has no
// id there: cosign gives none either.
type envelopeKey struct {
	signer   *Signer
	verifier *Verifier
}

func (k envelopeKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	return k.signer.sign(message)
}
func (k envelopeKey) KeyID() (string, error)   { return "", nil }
func (k envelopeKey) Public() crypto.PublicKey { return k.verifier.key }
func (k envelopeKey) Verify(_ context.Context, message, signature []byte) error {
	if !k.verifier.fits(message, signature) {
		return ErrSignature
	}
	return nil
}

// Envelope signs a statement.
func (s *Signer) Envelope(ctx context.Context, statement []byte) ([]byte, error) {
	signer, err := dsse.NewEnvelopeSigner(envelopeKey{signer: s, verifier: s.Verifier()})
	if err != nil {
		return nil, err
	}
	e, err := signer.SignPayload(ctx, StatementType, statement)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// Statement is what an in-toto statement says of itself.
type Statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []Subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is what a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Open gives the statement in an envelope that is about the image with digest
// d. With a nil Verifier it is not asked who signed it.
func (v *Verifier) Open(ctx context.Context, envelope []byte, d oci.Digest) (Statement, error) {
	content, err := v.content(ctx, envelope)
	if err != nil {
		return Statement{}, err
	}
	return ParseStatement(content, d)
}

func (v *Verifier) content(ctx context.Context, envelope []byte) ([]byte, error) {
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if e.PayloadType != StatementType {
		return nil, fmt.Errorf("envelope: it holds a %q, not a statement", e.PayloadType)
	}
	if v != nil {
		verifier, err := dsse.NewEnvelopeVerifier(envelopeKey{verifier: v})
		if err != nil {
			return nil, err
		}
		if _, err := verifier.Verify(ctx, &e); err != nil {
			return nil, ErrSignature
		}
	}
	return e.DecodeB64Payload()
}

// errSubject says that a statement is about something else.
var errSubject = errors.New("the statement is not about this image")

// ParseStatement reads a statement about the image with digest d.
func ParseStatement(text []byte, d oci.Digest) (Statement, error) {
	var s Statement
	if err := json.Unmarshal(text, &s); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	for _, subject := range s.Subject {
		if subject.Digest[d.Algorithm().String()] == d.Encoded() {
			return s, nil
		}
	}
	return Statement{}, errSubject
}

// NewStatement says something, the predicate, of the image with this name and
// digest.
func NewStatement(name string, d oci.Digest, predicateType string, predicate []byte) Statement {
	return Statement{
		Type: "https://in-toto.io/Statement/v1", PredicateType: predicateType, Predicate: predicate,
		Subject: []Subject{{Name: name, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}}},
	}
}
