package chat

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"net/http"
	"strings"
	"time"
)

const (
	identityCookie = "chat_identity"

	// identityAge is how long a browser keeps the cookie: as long as browsers
	// allow. Each page that is opened renews it.
	identityAge = 400 * 24 * time.Hour

	minToken, maxToken = 20, 64
)

// identify gives the client's user and the cookie that keeps it. The token in
// the cookie is a secret: whoever has it speaks as the user. So it is out of
// reach of scripts and never shown, and what others see is a hash of it.
//
// SameSite is Lax, not Strict: a link from elsewhere to a room would come
// without a Strict cookie, and the answer would replace the identity.
func identify(r *http.Request, secure bool) (user string, cookie *http.Cookie) {
	token := rand.Text()
	if sent, err := r.Cookie(identityCookie); err == nil && validToken(sent.Value) {
		token = sent.Value
	}
	return userOf(token), &http.Cookie{
		Name: identityCookie, Value: token, Path: "/", MaxAge: int(identityAge.Seconds()),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	}
}

func validToken(token string) bool {
	if len(token) < minToken || len(token) > maxToken {
		return false
	}
	for _, b := range []byte(token) {
		if !(b >= 'A' && b <= 'Z' || b >= '2' && b <= '7') {
			return false
		}
	}
	return true
}

func userOf(token string) string {
	sum := sha256.Sum256([]byte("chat user " + token))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}
