// Package cosign signs images and statements about them in the formats of
// Sigstore's cosign, and verifies what it or cosign has signed
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md).
//
// A payload is what a signature is over: a few lines of JSON ("simple signing")
// that name an image and its digest. A statement says something of an image, as
// in-toto has it (https://github.com/in-toto/attestation); signed, it is an
// envelope (DSSE, https://github.com/secure-systems-lab/dsse), and kept beside
// the image an attestation. The tags sha256-HEX.sig and sha256-HEX.att hold an
// image's signatures and attestations.
//
// It stands below registry since what it does is to put things into one and
// get them back; keys need nothing but the standard library and the cipher.
package cosign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// The PEM types of private keys that cosign knows: the second is that of its
// first versions.
const (
	privateType    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	oldPrivateType = "ENCRYPTED COSIGN PRIVATE KEY"
	publicType     = "PUBLIC KEY"
)

// ErrPassword says that a private key does not open with the password.
var ErrPassword = errors.New("wrong password")

// ErrKey is what errors wrap that say that a file holds no such key.
var ErrKey = errors.New("invalid key")

// Signer signs with a private key.
type Signer struct{ key crypto.Signer }

// Generate makes a key pair, ECDSA on P-256 as cosign does, both in PEM. The
// private one is encrypted with the password.
func Generate(password []byte) (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := encrypted.Encrypt(der, password)
	if err != nil {
		return nil, nil, err
	}
	public, err = marshalPublic(key.Public())
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: sealed}), public, nil
}

func marshalPublic(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), nil
}

// ParsePrivate opens a private key in PEM, as Generate and cosign write it.
// The error wraps ErrKey or ErrPassword.
func ParsePrivate(text, password []byte) (*Signer, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: no PEM", ErrKey)
	case block.Type != privateType && block.Type != oldPrivateType:
		return nil, fmt.Errorf("%w: it is a %q, not a private key as cosign has them", ErrKey, block.Type)
	}
	der, err := encrypted.Decrypt(block.Bytes, password)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassword, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: keys of type %T cannot sign", ErrKey, key)
	}
	if _, err := NewVerifier(signer.Public()); err != nil {
		return nil, err
	}
	return &Signer{key: signer}, nil
}

// Verifier is the signer's public key.
func (s *Signer) Verifier() *Verifier { return &Verifier{key: s.key.Public()} }

// sign gives a signature, the same for the same message: with no source of
// randomness ECDSA takes its secret number from key and message (RFC 6979), and
// the other kinds need none. So signing twice changes nothing at a registry.
func (s *Signer) sign(message []byte) ([]byte, error) {
	if key, ok := s.key.(ed25519.PrivateKey); ok {
		return ed25519.Sign(key, message), nil
	}
	hash := sha256.Sum256(message)
	return s.key.Sign(nil, hash[:], crypto.SHA256)
}

// Verifier verifies with a public key: ECDSA, RSA or Ed25519.
type Verifier struct{ key crypto.PublicKey }

// NewVerifier takes a public key of one of the kinds that cosign takes.
func NewVerifier(key crypto.PublicKey) (*Verifier, error) {
	switch key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
		return &Verifier{key: key}, nil
	}
	return nil, fmt.Errorf("%w: keys of type %T are not known", ErrKey, key)
}

// ParsePublic reads a public key in PEM. The error wraps ErrKey.
func ParsePublic(text []byte) (*Verifier, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM", ErrKey)
	}
	var key any
	var err error
	switch block.Type {
	case publicType:
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: it is a %q, not a public key", ErrKey, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return NewVerifier(key)
}

// fits tells whether a signature of the message is this key's.
func (v *Verifier) fits(message, signature []byte) bool {
	hash := sha256.Sum256(message)
	switch key := v.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, hash[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], signature) == nil
	case ed25519.PublicKey:
		long := sha512.Sum512(message) // cosign 2.6 signs so, but verifies only the other
		return ed25519.VerifyWithOptions(key, long[:], signature, &ed25519.Options{Hash: crypto.SHA512}) == nil ||
			ed25519.Verify(key, message, signature)
	}
	return false
}
