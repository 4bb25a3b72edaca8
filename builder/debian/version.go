package debian

import (
	"fmt"
	"strings"
)

// CompareVersions orders two Debian versions as deb-version(7) says: negative
// if a is earlier than b, 0 if they are equal, positive if later.
func CompareVersions(a, b string) int {
	epochA, a := splitEpoch(a)
	epochB, b := splitEpoch(b)
	if c := compareNumber(epochA, epochB); c != 0 {
		return c
	}
	upstreamA, revisionA := splitRevision(a)
	upstreamB, revisionB := splitRevision(b)
	if c := comparePart(upstreamA, upstreamB); c != 0 {
		return c
	}
	return comparePart(revisionA, revisionB)
}

// checkVersion tells whether v can be a Debian version.
func checkVersion(v string) error {
	_, rest := splitEpoch(v)
	if rest == "" {
		return fmt.Errorf("version %q is empty", v)
	}
	for i := range len(rest) {
		if c := rest[i]; !isDigit(c) && !isLetter(c) && !strings.ContainsRune(".+-~:", rune(c)) {
			return fmt.Errorf("version %q: %q is not allowed", v, c)
		}
	}
	return nil
}

func splitEpoch(v string) (epoch, rest string) {
	if before, after, ok := strings.Cut(v, ":"); ok && strings.Trim(before, "0123456789") == "" {
		return before, after
	}
	return "", v
}

func splitRevision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

// comparePart compares alternating runs of non-digits and digits.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		var textA, textB, numberA, numberB string
		textA, a = cutRun(a, false)
		textB, b = cutRun(b, false)
		if c := compareText(textA, textB); c != 0 {
			return c
		}
		numberA, a = cutRun(a, true)
		numberB, b = cutRun(b, true)
		if c := compareNumber(numberA, numberB); c != 0 {
			return c
		}
	}
	return 0
}

func cutRun(s string, digits bool) (run, rest string) {
	i := 0
	for i < len(s) && isDigit(s[i]) == digits {
		i++
	}
	return s[:i], s[i:]
}

func compareText(a, b string) int {
	for i := 0; i < len(a) || i < len(b); i++ {
		if c := weight(a, i) - weight(b, i); c != 0 {
			return c
		}
	}
	return 0
}

// weight orders a byte of a non-digit run: a tilde before the end, the end
// before letters, letters before everything else.
func weight(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case isLetter(s[i]):
		return int(s[i])
	}
	return int(s[i]) + 256
}

// compareNumber compares runs of digits of any length.
func compareNumber(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
