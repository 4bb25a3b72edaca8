package debian_test

import (
	"os/exec"
	"testing"

	"bareboat/builder/debian"
)

// versions in ascending order by dpkg; those of one line are equal.
var ascending = [][]string{
	{"0~~", "0:0~~"},
	{"0~~a"},
	{"0~"},
	{"0", "00", "0:0", "0-0"},
	{"0-1"},
	{"0a"},
	{"0+"},
	{"0.0~rc1"},
	{"0.0", "0.00"},
	{"0.0-1~bpo12+1"},
	{"0.0-1"},
	{"0.0-1+b1"},
	{"0.0-1.1"},
	{"0.0.1"},
	{"1.0~rc1~git123-1"},
	{"1.0~rc1-1"},
	{"1.0-1"},
	{"1.0-1+deb13u1"},
	{"1.0-1+deb13u2"},
	{"1.0-1+deb13u10"},
	{"1.0-2"},
	{"1.0+dfsg-1"},
	{"1.0.1-1"},
	{"1.2.3", "1.2.03", "0:1.2.3"},
	{"1.2.3-a-1"},
	{"1.10"},
	{"9"},
	{"10"},
	{"2026f-0+deb13u1"},
	{"20250419"},
	{"99999999999999999999999"},
	{"100000000000000000000000"},
	{"1:0"},
	{"1:1.3.dfsg+really1.3.1-1+b1"},
	{"1:2"},
	{"2:0"},
}

func TestCompareVersions(t *testing.T) {
	for i, left := range ascending {
		for j, right := range ascending {
			for _, a := range left {
				for _, b := range right {
					if got := sign3(debian.CompareVersions(a, b)); got != sign3(i-j) {
						t.Errorf("%s against %s: %d, want %d", a, b, got, sign3(i-j))
					}
				}
			}
		}
	}
}

// Where dpkg is at hand, the table above is held against it.
func TestVersionsAgainstDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Log("no dpkg here: the table stands alone")
		return
	}
	for i := range ascending {
		for _, step := range []int{1, 2, 3, 7, 13} {
			if i+step >= len(ascending) {
				continue
			}
			for _, a := range ascending[i] {
				for _, b := range ascending[i+step] {
					if err := exec.Command(dpkg, "--compare-versions", a, "lt", b).Run(); err != nil {
						t.Errorf("dpkg does not hold %s to be earlier than %s: %v", a, b, err)
					}
				}
			}
		}
		for _, other := range ascending[i][1:] {
			if err := exec.Command(dpkg, "--compare-versions", ascending[i][0], "eq", other).Run(); err != nil {
				t.Errorf("dpkg does not hold %s and %s to be equal: %v", ascending[i][0], other, err)
			}
		}
	}
}

func sign3(n int) int {
	return min(1, max(-1, n))
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0-1+b1")
	f.Add("", "~")
	f.Fuzz(func(t *testing.T, a, b string) {
		if debian.CompareVersions(a, a) != 0 {
			t.Errorf("%q is not equal to itself", a)
		}
		if x, y := sign3(debian.CompareVersions(a, b)), sign3(debian.CompareVersions(b, a)); x != -y {
			t.Errorf("%q against %q: %d one way, %d the other", a, b, x, y)
		}
	})
}
