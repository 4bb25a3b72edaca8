package sbom

import (
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/utils"

	"bareboat/internal/oci"
)

const none = "NOASSERTION"

// document collects the parts of a document.
type document struct {
	*v2_3.Document
	files    map[string]*v2_3.File // by path
	packages map[common.ElementID]bool
	related  map[string]bool
	licenses map[string]string // LicenseRef- to text
}

// document describes what was read.
func (s *scan) document(d oci.Digest, m oci.Manifest, config oci.ImageConfig) (*v2_3.Document, error) {
	name := "image-" + d.Algorithm().String() + "-" + d.Encoded()
	doc := &document{
		Document: &v2_3.Document{
			SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
			DocumentName: name, DocumentNamespace: "https://spdx.org/spdxdocs/bareboat-" + name,
			CreationInfo: &v2_3.CreationInfo{
				Creators: []common.Creator{{CreatorType: "Tool", Creator: "bareboat"}}, Created: created(config),
			},
		},
		files: map[string]*v2_3.File{}, packages: map[common.ElementID]bool{},
		related: map[string]bool{}, licenses: map[string]string{},
	}
	image := doc.image(d, config)
	doc.addFiles(s)
	if err := doc.addLayers(s, image, m); err != nil {
		return nil, err
	}
	if err := doc.addDebs(s, image); err != nil {
		return nil, err
	}
	doc.addPrograms(s, image)
	for _, id := range slices.Sorted(maps.Keys(doc.licenses)) {
		doc.OtherLicenses = append(doc.OtherLicenses, &v2_3.OtherLicense{LicenseIdentifier: id, LicenseName: strings.TrimPrefix(id, "LicenseRef-"), ExtractedText: doc.licenses[id]})
	}
	return doc.Document, nil
}

func (doc *document) image(d oci.Digest, config oci.ImageConfig) common.ElementID {
	const id = "Image"
	q := map[string]string{}
	if config.Architecture != "" {
		q["arch"] = config.Architecture
	}
	doc.add(&v2_3.Package{
		PackageName: "image", PackageSPDXIdentifier: id, PackageVersion: d.String(),
		PrimaryPackagePurpose: "CONTAINER", PackageChecksums: checksums(d),
		PackageExternalReferences: purl(packageurl.NewPackageURL("oci", "", "image", d.String(), packageurl.QualifiersFromMap(q), "").ToString()),
	})
	doc.relate("DOCUMENT", common.TypeRelationshipDescribe, id)
	return id
}

// checksums are a digest in SPDX's words, which knows those of images.
func checksums(d oci.Digest) []common.Checksum {
	return []common.Checksum{{Algorithm: common.ChecksumAlgorithm(strings.ToUpper(d.Algorithm().String())), Value: d.Encoded()}}
}

// add adds a package, once. What nobody has looked into is said to be so.
func (doc *document) add(p *v2_3.Package) {
	if doc.packages[p.PackageSPDXIdentifier] {
		return
	}
	doc.packages[p.PackageSPDXIdentifier] = true
	p.PackageDownloadLocation, p.PackageLicenseConcluded, p.PackageCopyrightText = none, none, none
	if p.PackageLicenseDeclared == "" {
		p.PackageLicenseDeclared = none
	}
	p.IsFilesAnalyzedTagPresent = true
	doc.Packages = append(doc.Packages, p)
}

func (doc *document) relate(a common.ElementID, how string, b common.ElementID) {
	key := string(a) + " " + how + " " + string(b)
	if doc.related[key] {
		return
	}
	doc.related[key] = true
	doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
		RefA: common.DocElementID{ElementRefID: a}, Relationship: how, RefB: common.DocElementID{ElementRefID: b},
	})
}

func (doc *document) addFiles(s *scan) {
	for _, where := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[where]
		out := &v2_3.File{
			FileName: "./" + where, FileSPDXIdentifier: hashed("File", where),
			Checksums:        []common.Checksum{{Algorithm: common.SHA1, Value: f.sha1}, {Algorithm: common.SHA256, Value: f.sha256}},
			LicenseConcluded: none, FileCopyrightText: none, FileComment: "layer " + f.layer.String(),
		}
		if f.program != nil {
			out.FileTypes = []string{"BINARY"}
		}
		doc.files[where] = out
		doc.Files = append(doc.Files, out)
	}
}

func (doc *document) addLayers(s *scan, image common.ElementID, m oci.Manifest) error {
	paths := map[oci.Digest][]string{}
	for where, f := range s.files {
		paths[f.layer] = append(paths[f.layer], where)
	}
	for _, l := range m.Layers {
		id := common.ElementID("Layer-" + l.Digest.Encoded())
		p := &v2_3.Package{
			PackageName: "layer", PackageSPDXIdentifier: id, PackageVersion: l.Digest.String(),
			PrimaryPackagePurpose: "ARCHIVE", PackageChecksums: checksums(l.Digest),
		}
		if err := doc.contain(p, paths[l.Digest]); err != nil {
			return err
		}
		doc.relate(image, common.TypeRelationshipContains, id)
	}
	return nil
}

// contain adds a package with its files.
func (doc *document) contain(p *v2_3.Package, paths []string) error {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	var files []*v2_3.File
	for _, where := range paths {
		files = append(files, doc.files[where])
		doc.relate(p.PackageSPDXIdentifier, common.TypeRelationshipContains, doc.files[where].FileSPDXIdentifier)
	}
	if p.FilesAnalyzed = len(files) > 0; p.FilesAnalyzed {
		code, err := utils.GetVerificationCode(files, "")
		if err != nil {
			return err
		}
		p.PackageVerificationCode = &code
	}
	doc.add(p)
	return nil
}

func (doc *document) addDebs(s *scan, image common.ElementID) error {
	all, err := s.debs()
	if err != nil {
		return fmt.Errorf("list of Debian packages: %w", err)
	}
	ids := map[string]common.ElementID{}
	for _, d := range all {
		ids[d.name] = hashed("Debian-"+d.name, d.name+":"+d.arch+"="+d.version)
	}
	distro, release := s.distribution()
	for _, d := range all {
		id := hashed("Debian-"+d.name, d.name+":"+d.arch+"="+d.version)
		p := &v2_3.Package{
			PackageName: d.name, PackageSPDXIdentifier: id, PackageVersion: d.version, PackageHomePage: d.homepage,
			PackageSummary: d.about, PackageLicenseDeclared: d.license.expression, PrimaryPackagePurpose: "LIBRARY",
			PackageExternalReferences: purl(d.purl(distro, release)),
		}
		if d.maintainer != "" {
			p.PackageSupplier = &common.Supplier{SupplierType: "Organization", Supplier: d.maintainer}
		}
		if err := doc.contain(p, d.files); err != nil {
			return err
		}
		maps.Copy(doc.licenses, d.license.texts)
		doc.relate(image, common.TypeRelationshipContains, id)
		for _, dependency := range d.depends {
			if to, ok := ids[dependency]; ok && to != id {
				doc.relate(id, common.TypeRelationshipDependsOn, to)
			}
		}
	}
	return nil
}

// addPrograms adds the modules of programs written in Go.
func (doc *document) addPrograms(s *scan, image common.ElementID) {
	for _, where := range slices.Sorted(maps.Keys(s.files)) {
		info := s.files[where].program
		if info == nil {
			continue
		}
		main := doc.module(mainModule(info), "APPLICATION")
		doc.relate(image, common.TypeRelationshipContains, main)
		doc.relate(doc.files[where].FileSPDXIdentifier, common.TypeRelationshipGeneratedFrom, main)
		for _, m := range info.Deps {
			doc.relate(main, common.TypeRelationshipDependsOn, doc.module(*m, "LIBRARY"))
		}
		library := debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}
		doc.relate(main, common.TypeRelationshipDependsOn, doc.module(library, "LIBRARY"))
	}
}

// mainModule is the one that the program's main package is in. Programs built
// from a list of files, and Go's own, say none; then the package stands for it.
func mainModule(info *buildinfo.BuildInfo) debug.Module {
	if info.Main.Path != "" {
		return info.Main
	}
	return debug.Module{Path: info.Path}
}

func (doc *document) module(m debug.Module, purpose string) common.ElementID {
	if m.Replace != nil {
		m = *m.Replace
	}
	if m.Version == "(devel)" {
		m.Version = ""
	}
	id := hashed("Go-"+m.Path, m.Path+"@"+m.Version)
	p := &v2_3.Package{
		PackageName: m.Path, PackageSPDXIdentifier: id, PackageVersion: m.Version, PrimaryPackagePurpose: purpose,
	}
	if m.Sum != "" {
		p.PackageComment = "go.sum " + m.Sum
	}
	namespace, name := "", m.Path
	if i := strings.LastIndex(m.Path, "/"); i >= 0 {
		namespace, name = m.Path[:i], m.Path[i+1:]
	}
	if !strings.HasPrefix(m.Path, ".") && m.Path != "" { // a replacement may be a folder
		p.PackageExternalReferences = purl(packageurl.NewPackageURL(packageurl.TypeGolang, namespace, name, m.Version, nil, "").ToString())
	}
	doc.add(p)
	return id
}

func purl(locator string) []*v2_3.PackageExternalReference {
	return []*v2_3.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: locator,
	}}
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// hashed is an identifier that a person can read and that differs wherever what
// it stands for differs: identifiers have only letters, digits, dots and dashes.
func hashed(name, what string) common.ElementID {
	sum := sha256.Sum256([]byte(what))
	return common.ElementID(fmt.Sprintf("%s-%x", notInID.ReplaceAllString(name, "-"), sum[:8]))
}
