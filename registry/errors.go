package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Kind tells errors apart by what can be done about them.
type Kind int

// The kinds of errors.
const (
	Other        Kind = iota
	Credentials       // an auth file or a credential helper cannot be read
	Unauthorized      // the registry wants credentials, or did not take them
	Denied            // the user is known and may not
	NotFound          // no such repository, tag or manifest
	Unreachable       // no answer, or it broke off
	Insecure          // no TLS, or a certificate that cannot be verified
	Content           // what came is not what its digest says, or no image
)

// Error is what goes wrong between a client and a registry.
type Error struct {
	Op   string // "push", "pull", "resolve", "log in" or "log out"
	Name string // what it was done to, HOST/REPOSITORY and what else was named
	Kind Kind
	Err  error // the cause; its text may hold what Error leaves out

	text string
	hint string
}

// Error is one line. It holds no secret, and nothing of a URL's query.
func (e *Error) Error() string { return fmt.Sprintf("%s %s: %s", e.Op, e.Name, e.text) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint is what to try next, one line, or nothing.
func (e *Error) Hint() string { return e.hint }

// fail makes an error of the session's operation. When ctx has ended, that is
// the cause, and it is not the registry's.
func (s *session) fail(ctx context.Context, err error) error {
	name := s.ref.String()
	switch {
	case s.ref.Repository == "":
		name = s.ref.Registry
	case s.op != "pull" && s.op != "resolve":
		name = s.ref.Name()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", s.op, name, context.Cause(ctx))
	}
	kind := classify(err)
	return &Error{
		Op: s.op, Name: name, Kind: kind, Err: err,
		text: redact(describe(kind, err), s.credential.secrets()),
		hint: s.hint(kind, err),
	}
}

// classify goes from what is certain to what is not: a failed handshake over
// TLS is followed by one over plain HTTP where that is allowed, and both
// errors come together.
func classify(err error) Kind {
	var answer *transport.Error
	var network net.Error
	switch {
	case errors.Is(err, errCredentials):
		return Credentials
	case errors.Is(err, errNotLoggedIn):
		return Unauthorized
	case errors.Is(err, errContent):
		return Content
	case isCertificate(err):
		return Insecure
	case errors.As(err, &answer):
		return classifyStatus(answer.StatusCode)
	case isBroken(err), errors.As(err, &network) && network.Timeout():
		return Unreachable
	case isPlain(err):
		return Insecure
	}
	return Other
}

func classifyStatus(status int) Kind {
	switch status {
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return Denied
	case http.StatusNotFound:
		return NotFound
	}
	return Other
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

func isPlain(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, errPlainHTTP) || errors.As(err, &record)
}

func isBroken(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// asContent marks errors of the library that are about neither the network nor
// an answer's status: they are about what came.
func asContent(err error) error {
	var answer *transport.Error
	if err == nil || classify(err) != Other || errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("%w: %w", errContent, withoutURL(err))
}

// describe says in a few words what went wrong.
func describe(kind Kind, err error) string {
	var answer *transport.Error
	switch kind {
	case Unauthorized:
		if errors.Is(err, errNotLoggedIn) {
			return errNotLoggedIn.Error()
		}
		return "unauthorized"
	case NotFound:
		return "not found"
	case Unreachable:
		return describeNetwork(err)
	case Insecure:
		return describeTLS(err)
	case Denied:
		return strings.TrimSuffix("denied: "+words(err), ": ")
	case Other:
		if said := words(err); said != "" {
			return said
		}
		if errors.As(err, &answer) {
			return fmt.Sprintf("status %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
		}
	}
	return withoutURL(err).Error()
}

// words are what the registry itself says, if anything.
func words(err error) string {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return ""
	}
	var said []string
	for _, d := range answer.Errors {
		if text := strings.TrimSpace(d.Message); text != "" {
			said = append(said, text)
		} else if d.Code != "" {
			said = append(said, string(d.Code))
		}
	}
	return strings.Join(said, "; ")
}

func describeNetwork(err error) string {
	var name *net.DNSError
	var number syscall.Errno
	var network net.Error
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "no such host"
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &network) && network.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke off"
	}
	return withoutURL(err).Error()
}

func describeTLS(err error) string {
	if isPlain(err) && !isCertificate(err) {
		return "it does not speak TLS"
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return "its certificate is signed by an unknown authority"
	}
	return withoutURL(err).Error()
}

// withoutURL leaves the URL out, which errors of HTTP requests begin with.
func withoutURL(err error) error {
	var request *url.Error
	for errors.As(err, &request) {
		err = request.Err
	}
	return err
}

func (s *session) hint(kind Kind, err error) string {
	host := s.ref.Registry
	login := "run: bareboat login " + host
	switch kind {
	case Credentials:
		return login + ", or mend the file"
	case Unauthorized:
		if errors.Is(err, errNotLoggedIn) {
			return "name the file with --authfile if they are kept elsewhere; login: bareboat login " + host
		}
		if s.op == "log in" {
			return "are the name and the password right? Some registries want a token in place of the password"
		}
		if s.credential.isEmpty() {
			return login
		}
		return fmt.Sprintf("%s did not take the credentials from %s; %s", host, s.credential.source, login)
	case Denied:
		if s.credential.isEmpty() {
			return login
		}
		return fmt.Sprintf("ask whoever runs %s to let %s %s %s", host, s.user(), s.op, s.ref.Repository)
	case NotFound:
		if s.op == "push" {
			return fmt.Sprintf("is %s the right path at %s?", s.ref.Repository, host)
		}
		return "is the name right, and was it pushed?"
	case Unreachable:
		if isLoopback(host) {
			return "is a registry running there? bareboat registry serve starts one"
		}
		return fmt.Sprintf("is %s the right name, and is the registry running?", host)
	case Insecure:
		if isPlain(err) && !isCertificate(err) {
			return fmt.Sprintf("if %s may be spoken to over plain HTTP, say so with --tls-verify=false", host)
		}
		return "name a file with its authority's certificate in SSL_CERT_FILE, or go on without with --tls-verify=false"
	case Content:
		return "push the image again"
	}
	if errors.Is(err, errBadKey) {
		return "name a registry, such as registry.example.com or localhost:5000"
	}
	if errors.Is(err, errNoRegistry) {
		return "name one with --registry HOST[:PORT]/PATH"
	}
	return ""
}

// user is whom the registry knows the client as.
func (s *session) user() string {
	if s.credential.Username != "" {
		return s.credential.Username
	}
	return "this user"
}

var (
	query    = regexp.MustCompile(`(\w+://[^\s"'?]*)\?[^\s"']*`)
	userinfo = regexp.MustCompile(`(\w+://)[^\s"'/@]*@`)
)

// longest is how much of a registry's words a message holds.
const longest = 300

// redact makes a text fit to be shown: one line, no control characters, no
// secrets, nothing of a URL that may be one.
func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	text = query.ReplaceAllString(text, "$1")
	text = userinfo.ReplaceAllString(text, "$1")
	text = strings.Join(strings.Fields(strings.Map(printable, text)), " ")
	if r := []rune(text); len(r) > longest {
		text = string(r[:longest]) + "…"
	}
	return text
}

func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsPrint(r):
		return r
	}
	return -1
}
