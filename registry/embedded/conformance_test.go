package embedded_test

import (
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/registry/embedded"
)

// The suite is a program of its own; its version is pinned in conformance/go.mod,
// a module apart so that its dependencies stay out of ours.
const suite = "github.com/opencontainers/distribution-spec/conformance"

// categories turns on each API and each kind of content by name, whatever the
// suite's defaults are, with those that the specification leaves to the
// registry. Left out are only manifests whose blobs are missing ("sparse"),
// which our settings refuse on purpose.
var categories = []string{
	// pull
	"OCI_API_PING=true", "OCI_API_PULL=true",
	"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
	// push
	"OCI_API_PUSH=true", "OCI_API_BLOBS_MOUNT_ANONYMOUS=true",
	"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_TAG_PARAM=true",
	// content discovery
	"OCI_API_TAGS_LIST=true", "OCI_API_REFERRER=true",
	// content management
	"OCI_API_BLOBS_DELETE=true", "OCI_API_BLOBS_ATOMIC=true",
	"OCI_API_MANIFESTS_DELETE=true", "OCI_API_MANIFESTS_ATOMIC=true",
	"OCI_API_TAGS_DELETE=true", "OCI_API_TAGS_ATOMIC=true",
	// content
	"OCI_DATA_IMAGE=true", "OCI_DATA_INDEX=true", "OCI_DATA_INDEX_LIST=true",
	"OCI_DATA_ARTIFACT=true", "OCI_DATA_SUBJECT=true",
	"OCI_DATA_SUBJECT_MISSING=true", "OCI_DATA_ARTIFACT_LIST=true",
	"OCI_DATA_SUBJECT_LIST=true", "OCI_DATA_DATA_FIELD=true",
	"OCI_DATA_NONDISTRIBUTABLE=true", "OCI_DATA_CUSTOM_FIELDS=true",
	"OCI_DATA_NO_LAYERS=true", "OCI_DATA_EMPTY_BLOB=true", "OCI_DATA_SHA512=true",
}

// maySkip names the cases whose other answer the specification allows too: a
// registry need not mount a blob when no source repository is named, and
// answers 202 to begin an upload instead.
var maySkip = map[string]bool{
	"sha256 blobs/mount anonymous/blob-mount-anonymous": true,
	"sha512 blobs/mount anonymous/blob-mount-anonymous": true,
}

// leastCases is what the pinned suite has with these categories: fewer would
// mean that one was off.
const leastCases = 787

// TestConformance runs the OCI distribution conformance suite, all categories
// (pull, push, content discovery, content management), against a served store.
func TestConformance(t *testing.T) {
	program := filepath.Join(t.TempDir(), "conformance")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, suite)
	build.Dir = "conformance"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the conformance suite: %v\n%s", err, out)
	}

	addr := serve(t, open(t, t.TempDir()))
	results := t.TempDir()
	run := exec.CommandContext(t.Context(), program)
	run.Dir = results
	run.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"OCI_VERSION=1.1",
		"OCI_REGISTRY=" + addr,
		"OCI_TLS=disabled",
		"OCI_REPO1=conformance/first",
		"OCI_REPO2=conformance/second",
		"OCI_RESULTS_DIR=" + results,
	}, categories...)
	out, err := run.CombinedOutput()
	if err != nil {
		t.Errorf("conformance: %v\n%s", err, out)
	}
	check(t, filepath.Join(results, "junit.xml"))
}

type junit struct {
	Cases []struct {
		Name   string `xml:"name,attr"`
		Status string `xml:"status,attr"`
		Output string `xml:"system-out"`
	} `xml:"testsuite>testcase"`
}

// check reads the suite's report: everything has to have run and passed.
func check(t *testing.T, report string) {
	t.Helper()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var all junit
	if err := xml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, c := range all.Cases {
		counts[c.Status]++
		if c.Status == "passed" {
			continue
		}
		name := c.Name[strings.Index(c.Name, "/")+1:]
		if c.Status != "skipped" || !maySkip[name] {
			t.Errorf("%s: %s\n%s", name, c.Status, c.Output)
		}
	}
	if counts["passed"] < leastCases {
		t.Errorf("conformance: only %d cases passed, at least %d were to", counts["passed"], leastCases)
	}
	t.Logf("conformance: %v", counts)
}

func open(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serve lets s answer on a free port of this machine until the test ends.
func serve(t *testing.T, s *embedded.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() { // t.Context() has ended by now
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
