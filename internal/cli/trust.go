package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bareboat/internal/config"
	"bareboat/internal/pipeline"
	"bareboat/registry/cosign"
)

// passwordVariables may hold the password of a private key: ours, and cosign's.
var passwordVariables = []string{"BAREBOAT_KEY_PASSWORD", "COSIGN_PASSWORD"}

// keyError is a key that cannot be used.
type keyError struct {
	file string
	err  error
	hint string
}

func (e *keyError) Error() string { return fmt.Sprintf("key %s: %v", e.file, e.err) }
func (e *keyError) Unwrap() error { return e.err }
func (e *keyError) Hint() string  { return e.hint }

// attestFlags are the flags of commands that push. The key is opened by signer.
func attestFlags(c *cobra.Command, o *pipeline.Attest, key *string) {
	c.Flags().BoolVar(&o.SBOM, "sbom", true, "attach what the image is made of (SPDX)")
	c.Flags().BoolVar(&o.Provenance, "provenance", true, "attach how the image was made (SLSA)")
	c.Flags().StringVar(key, "sign", "", "private `KEY` to sign the image with, as bareboat key generate or cosign writes it; its password is asked for, or taken from BAREBOAT_KEY_PASSWORD")
}

// signer opens the private key of --sign; without one there is no signer.
func (a *app) signer(file string) (*cosign.Signer, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	password, err := a.password(file, false)
	if err != nil {
		return nil, err
	}
	s, err := cosign.ParsePrivate(text, password)
	switch {
	case errors.Is(err, cosign.ErrPassword):
		return nil, &keyError{file: file, err: cosign.ErrPassword, hint: "set BAREBOAT_KEY_PASSWORD, or leave it unset to be asked"}
	case err != nil:
		return nil, &keyError{file: file, err: err, hint: "bareboat key generate makes one"}
	}
	return s, nil
}

func verifier(file string) (*cosign.Verifier, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v, err := cosign.ParsePublic(text)
	if err != nil {
		return nil, &keyError{file: file, err: err, hint: "bareboat key generate writes the public key to PREFIX.pub"}
	}
	return v, nil
}

// password is the key's, from the environment, or asked for where a person sits
// at the terminal, twice for a new one.
func (a *app) password(file string, isNew bool) ([]byte, error) {
	for _, name := range passwordVariables {
		if value, ok := os.LookupEnv(name); ok {
			return []byte(value), nil
		}
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return nil, &keyError{file: file, err: errors.New("its password is not known"), hint: "set BAREBOAT_KEY_PASSWORD; it may be empty"}
	}
	first, err := a.ask(terminal, "Password for "+file+": ")
	if err != nil || !isNew {
		return first, err
	}
	again, err := a.ask(terminal, "The same again: ")
	if err == nil && !bytes.Equal(first, again) {
		err = &keyError{file: file, err: errors.New("the two passwords differ")}
	}
	return first, err
}

func (a *app) ask(terminal *os.File, question string) ([]byte, error) {
	fmt.Fprint(a.stderr, question)
	defer fmt.Fprintln(a.stderr)
	return term.ReadPassword(int(terminal.Fd()))
}

func (a *app) key() *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Make keys that sign images", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	prefix := "bareboat"
	generate := &cobra.Command{
		Use:   "generate",
		Short: "Make a key pair",
		Long: `Make a key pair: PREFIX.key, the private key, encrypted with a password, and
PREFIX.pub, the public one. They have cosign's format. The password is asked for,
or taken from BAREBOAT_KEY_PASSWORD or COSIGN_PASSWORD. Files that are there are
not overwritten.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.generateKey(prefix) },
	}
	generate.Flags().StringVar(&prefix, "out", prefix, "`PREFIX` of the two files")
	c.AddCommand(generate)
	return c
}

func (a *app) generateKey(prefix string) error {
	files := []string{prefix + ".key", prefix + ".pub"}
	for _, name := range files {
		if _, err := os.Lstat(name); err == nil {
			return &keyError{file: name, err: fs.ErrExist, hint: "--out PREFIX names other files"}
		}
	}
	password, err := a.password(files[0], true)
	if err != nil {
		return err
	}
	private, public, err := cosign.Generate(password)
	if err != nil {
		return err
	}
	if err := writeNew(files[0], private, 0o600); err != nil {
		return err
	}
	if err := writeNew(files[1], public, 0o644); err != nil {
		return errors.Join(err, os.Remove(files[0]))
	}
	return a.printLines(files, nil)
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(name string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// viewer is a pipeline that looks at images. References need no Compose file.
func (a *app) viewer(c *cobra.Command, images []string) (*pipeline.Pipeline, error) {
	if err := a.checkRegistry(); err != nil {
		return nil, err
	}
	project, err := a.load(c.Context())
	for _, image := range images {
		if err != nil && !strings.ContainsAny(image, "/:@") {
			return nil, err
		}
	}
	if err != nil {
		project = &config.Project{}
	}
	return &pipeline.Pipeline{Project: project, Registry: a.registry, Insecure: !a.tlsVerify, Notify: a.printer().Event}, nil
}

// imageArgs says how many images a command takes.
func imageArgs(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most > 0 && len(args) > most {
			return &usageError{err: errors.New("name an image: a service, or a reference such as HOST/NAME:TAG"), command: c.CommandPath()}
		}
		return nil
	}
}

func (a *app) verify() *cobra.Command {
	var key, identity string
	var rebuild, asJSON bool
	c := &cobra.Command{
		Use:   "verify --key PUB IMAGE… | --rebuild [SERVICE…]",
		Short: "Verify the signatures of images, or that they can be built again",
		Long: `Verify that each image, a service's or one that is named by a reference, has a
signature of the key: one by bareboat push --sign or by cosign. The images that
have are printed as NAME@DIGEST. One that has none, one whose signature is of
another key, and one that was signed as something else end the command with exit
code 1.

With --rebuild, the images of services are built, and built again with an empty cache
and in another store: both have to have the same digest. If not, what differs is
shown, and the exit code is 1.

With zero-downtime, whether people notice what is done to a site.`,
		RunE: func(c *cobra.Command, args []string) error {
			if rebuild {
				return a.verifyRebuild(c, args, asJSON)
			}
			if err := imageArgs(1, 0)(c, args); err != nil {
				return err
			}
			if key == "" {
				return &usageError{err: errors.New("--key is missing"), command: c.CommandPath()}
			}
			v, err := verifier(key)
			if err != nil {
				return err
			}
			p, err := a.viewer(c, args)
			if err != nil {
				return err
			}
			for _, image := range args {
				pinned, err := p.Verify(c.Context(), image, v, identity)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, pinned)
			}
			return nil
		},
	}
	c.Flags().StringVar(&key, "key", "", "public key, `PUB` (ECDSA, RSA or Ed25519, in PEM)")
	c.Flags().BoolVar(&rebuild, "rebuild", false, "build again elsewhere, and compare digests")
	c.Flags().BoolVar(&asJSON, "json", false, "with --rebuild, print one JSON document")
	c.Flags().StringVar(&identity, "identity", "", "`NAME` that the image was signed under, where it was copied from another place")
	c.AddCommand(a.verifyDowntime())
	return c
}

func (a *app) sbom() *cobra.Command {
	var key string
	platform := "linux/" + runtime.GOARCH
	c := &cobra.Command{
		Use:   "sbom IMAGE",
		Short: "Print what an image is made of, as SPDX",
		Long: `Print what an image, a service's or one that is named by a reference, is made of:
an SPDX 2.3 document in JSON, with Go modules, Debian packages and files. It is the
one that is attached to the image, else it is made of the image's layers. With
--key only an attached one will do that this key has signed.`,
		Args: imageArgs(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.viewer(c, args)
			if err != nil {
				return err
			}
			var v *cosign.Verifier
			if key != "" {
				if v, err = verifier(key); err != nil {
					return err
				}
			}
			text, err := p.SBOM(c.Context(), args[0], platform, v)
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "public key, `PUB`, that has to have signed the document")
	c.Flags().StringVar(&platform, "platform", platform, "`OS/ARCHITECTURE` of the image, where there are several")
	return c
}

func (a *app) tree() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "tree IMAGE",
		Short: "Show what hangs on an image at its registry",
		Long: `Show what hangs on an image, a service's or one that is named by a reference: its
platforms, their layers, and what refers to each: SBOM, provenance, signatures.`,
		Args: imageArgs(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.viewer(c, args)
			if err != nil {
				return err
			}
			t, err := p.Tree(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(t)
			}
			return a.printLines(treeLines(t), nil)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// treeLines draws a tree, a line for each thing in it.
func treeLines(t pipeline.Tree) []string {
	head := t.Name
	if head == "" {
		head = strings.TrimSpace(t.Platform + " " + t.Digest.String())
	}
	if t.Layers > 0 {
		head += fmt.Sprintf("  %d layers, %s", t.Layers, humanize.Bytes(uint64(t.Size)))
	}
	var branches [][]string
	for _, i := range t.Images {
		branches = append(branches, treeLines(i))
	}
	for _, r := range t.Referrers {
		line := fmt.Sprintf("referrer %s  %s, %s", r.Digest, r.ArtifactType, humanize.Bytes(uint64(r.Size)))
		if r.About != "" {
			line += "  " + r.About
		}
		branches = append(branches, []string{line})
	}
	if t.Signatures > 0 {
		branches = append(branches, []string{fmt.Sprintf("signatures: %d", t.Signatures)})
	}
	for _, about := range t.Attestations {
		branches = append(branches, []string{"attestation  " + about})
	}
	return append([]string{head}, indent(branches)...)
}

func indent(branches [][]string) []string {
	var out []string
	for i, b := range branches {
		first, rest := "├── ", "│   "
		if i == len(branches)-1 {
			first, rest = "└── ", "    "
		}
		for n, line := range b {
			if n == 0 {
				out = append(out, first+line)
			} else {
				out = append(out, rest+line)
			}
		}
	}
	return out
}
