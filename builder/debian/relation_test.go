package debian_test

import (
	"strings"
	"testing"

	"bareboat/builder/debian"
)

func TestParseDependencies(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{in: "", want: ""},
		{in: "libc6", want: "libc6"},
		{in: "libc6 (>= 2.38), libgcc-s1(>=3.0)", want: "libc6 (>= 2.38), libgcc-s1 (>= 3.0)"},
		{in: "debconf (>= 0.5) | debconf-2.0", want: "debconf (>= 0.5) | debconf-2.0"},
		{in: "python3:any (>= 3.5~), perl:any", want: "python3:any (>= 3.5~), perl:any"},
		{in: "a1, ,b2,", want: "a1, b2"},
		{in: "libstdc++6 (>= 13.1)\n , g++ (<< 4:15)", want: "libstdc++6 (>= 13.1), g++ (<< 4:15)"},
		{in: "old-style (< 2) , b2 (> 1)", want: "old-style (<= 2), b2 (>= 1)"},
		{in: "a", err: "not a package name"},
		{in: "../etc", err: "not a package name"},
		{in: "a1 b2", err: "not a package name"},
		{in: "a1 (2.0)", err: "no operator"},
		{in: "a1 (>= )", err: "empty"},
		{in: "a1 (>= 2", err: "parentheses"},
		{in: "a1 (>= 2) (<< 3)", err: "parentheses"},
		{in: "a1 (=> 2)", err: "no operator"},
		{in: "a1 (= 2 3)", err: "not allowed"},
		{in: "a1 |", err: "not a package name"},
	}
	for _, tt := range tests {
		deps, err := debian.ParseDependencies(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: got %v, want %q", tt.in, err, tt.err)
			}
			continue
		}
		if got := join(deps); err != nil || got != tt.want {
			t.Errorf("%q: got %q, %v", tt.in, got, err)
		}
	}
}

func join(deps []debian.Dependency) string {
	var out []string
	for _, d := range deps {
		out = append(out, d.String())
	}
	return strings.Join(out, ", ")
}

func TestRelationAllows(t *testing.T) {
	tests := []struct {
		relation, version string
		want              bool
	}{
		{"aa", "1", true},
		{"aa (<< 2)", "1", true}, {"aa (<< 2)", "2", false},
		{"aa (<= 2)", "2", true}, {"aa (<= 2)", "2.1", false},
		{"aa (= 2)", "2.0", false}, {"aa (= 2)", "2", true},
		{"aa (>= 2)", "2", true}, {"aa (>= 2)", "2~", false},
		{"aa (>> 2)", "2", false}, {"aa (>> 2)", "2-1", true},
	}
	for _, tt := range tests {
		deps, err := debian.ParseDependencies(tt.relation)
		if err != nil {
			t.Fatal(err)
		}
		if got := deps[0][0].Allows(tt.version); got != tt.want {
			t.Errorf("%s allows %s: %v", tt.relation, tt.version, got)
		}
	}
}

func FuzzParseDependencies(f *testing.F) {
	f.Add("libc6 (>= 2.38), debconf | debconf-2.0, perl:any (<< 5)")
	f.Fuzz(func(t *testing.T, s string) {
		deps, err := debian.ParseDependencies(s)
		if err != nil {
			return
		}
		again, err := debian.ParseDependencies(join(deps))
		if err != nil || join(again) != join(deps) {
			t.Errorf("%q: %q becomes %q, %v", s, join(deps), join(again), err)
		}
	})
}
