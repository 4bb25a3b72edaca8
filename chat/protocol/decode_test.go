package protocol_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"bareboat/chat/protocol"
)

func TestDecode(t *testing.T) {
	long := strings.Repeat("ä", protocol.MaxText)
	cases := []struct {
		name, data string
		want       error
	}{
		{"hello", `{"t":"hello","v":1,"nick":"Ann","cursors":{"lobby":41,"new":null}}`, nil},
		{"hello of another version", `{"t":"hello","v":2,"cursors":{"lobby":null}}`, protocol.ErrFrame},
		{"hello without rooms", `{"t":"hello","v":1}`, protocol.ErrFrame},
		{"hello with a negative cursor", `{"t":"hello","v":1,"cursors":{"a":-1}}`, protocol.ErrFrame},
		{"hello with a bad room", `{"t":"hello","v":1,"cursors":{"A b":1}}`, protocol.ErrFrame},
		{"send", `{"t":"send","cid":"c1","room":"lobby","text":"hi"}`, nil},
		{"send of the longest text", `{"t":"send","cid":"c1","room":"lobby","text":"` + long + `"}`, nil},
		{"send of a longer text", `{"t":"send","cid":"c1","room":"lobby","text":"` + long + `."}`, protocol.ErrText},
		{"send of spaces", `{"t":"send","cid":"c1","room":"lobby","text":" \n\t"}`, protocol.ErrText},
		{"send without a cid", `{"t":"send","room":"lobby","text":"hi"}`, protocol.ErrFrame},
		{"send with a long cid", `{"t":"send","cid":"` + strings.Repeat("c", 65) + `","room":"lobby","text":"hi"}`, protocol.ErrFrame},
		{"send with a newline in the cid", `{"t":"send","cid":"a\nb","room":"lobby","text":"hi"}`, protocol.ErrFrame},
		{"fill", `{"t":"fill","room":"lobby","before":5,"limit":2}`, nil},
		{"fill before nothing", `{"t":"fill","room":"lobby"}`, protocol.ErrFrame},
		{"nick", `{"t":"nick","nick":"Bob"}`, nil},
		{"of a later version", `{"t":"react","emoji":"+1"}`, nil},
		{"of a later version, with a field of another type", `{"t":"react","room":5,"text":["+1"]}`, nil},
		{"of a later version, cut", `{"t":"react","room":5`, protocol.ErrFrame},
		{"a type that is no text", `{"t":5}`, protocol.ErrFrame},
		{"without a type", `{"v":1}`, protocol.ErrFrame},
		{"an array", `[1]`, protocol.ErrFrame},
		{"a wrong type", `{"t":"send","text":5}`, protocol.ErrFrame},
		{"cut", `{"t":"send"`, protocol.ErrFrame},
		{"empty", ``, protocol.ErrFrame},
		{"not UTF-8", "{\"t\":\"nick\",\"nick\":\"\xff\"}", protocol.ErrFrame},
		{"two", `{"t":"ping"}{"t":"ping"}`, protocol.ErrFrame},
	}
	for _, c := range cases {
		if _, err := protocol.Decode([]byte(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestDecodeBoundsFill(t *testing.T) {
	for given, want := range map[string]int{"0": protocol.MaxFill, "7": 7, "5000": protocol.MaxFill} {
		f, err := protocol.Decode([]byte(`{"t":"fill","room":"a","before":9,"limit":` + given + `}`))
		if err != nil || f.Limit != want {
			t.Errorf("limit %s became %d, %v", given, f.Limit, err)
		}
	}
}

func TestValidRoom(t *testing.T) {
	for name, want := range map[string]bool{
		"lobby": true, "a": true, "9-x_y": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "_a": false, "Lobby": false, "a b": false, "a/b": false, "ä": false, "..": false, strings.Repeat("a", 33): false,
	} {
		if got := protocol.ValidRoom(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestCleanNick(t *testing.T) {
	for given, want := range map[string]string{
		"  Ann \t Lee\n": "Ann Lee", "\u202eevil\u2066": "evil", "👩\u200d🚀": "👩\u200d🚀", "\x00\x07": "", "\u200d": "", "Al\u200d \u200d": "Al", "Zoë": "Zoë",
		strings.Repeat("é", 40): strings.Repeat("é", 32),
	} {
		if got := protocol.CleanNick(given); got != want {
			t.Errorf("%q became %q, want %q", given, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"t":"hello","v":1,"nick":"Ann","store":"s","cursors":{"lobby":41,"new":null}}`,
		`{"t":"send","cid":"c1","room":"lobby","text":"hi"}`,
		`{"t":"fill","room":"lobby","before":5,"limit":2}`,
		`{"t":"nick","nick":"\u202e"}`, `{"t":"ping"}`, `{"T":"send"}`, `null`, `{"room":5,"t":"x"}`, `{"t":"x","cursors":{}}`, `{"t":"x","cursors":{"":-9223372036854775808}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := protocol.Decode(data)
		if errors.Is(err, protocol.ErrFrame) {
			return
		}
		if !utf8.ValidString(frame.Text) || !utf8.ValidString(frame.Nick) || utf8.RuneCountInString(frame.Nick) > protocol.MaxNick && (frame.T == "hello" || frame.T == "nick") {
			t.Fatalf("accepted %+v", frame)
		}
		if len(frame.Cursors) == 0 {
			frame.Cursors = nil // to name no room is to have none
		}
		again, err2 := json.Marshal(frame)
		if err2 != nil {
			t.Fatal(err2)
		}
		twice, err2 := protocol.Decode(again)
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(frame, twice) {
			t.Fatalf("%s\nread again is %+v (%v), was %+v (%v)", again, twice, err2, frame, err)
		}
	})
}
