package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bareboat/registry"
)

var errPassword = errors.New("--password would show the password to everybody on this machine; --password-stdin reads it from standard input")

func (a *app) login() *cobra.Command {
	var user, authFile string
	var fromStdin, getLogin bool
	c := &cobra.Command{
		Use:   "login [REGISTRY]",
		Short: "Log in to a registry",
		Long: `Log in to a registry, as HOST[:PORT], or with a path to what lies below it alone, as
HOST/TEAM; without one to Docker Hub. Name and password are asked for, the password
without showing it; in scripts, give --username and --password-stdin. They are tried
before they are kept.

They are kept in the auth file, which Podman, Buildah and Skopeo share: --authfile,
else $REGISTRY_AUTH_FILE, else $XDG_RUNTIME_DIR/containers/auth.json; or in the
credential helper that this file names (credHelpers, credsStore).`,
		Args: atMostOneRegistry,
		RunE: func(c *cobra.Command, args []string) error {
			client, key := a.account(authFile), registryOf(args)
			if c.Flags().Changed("password") {
				return &usageError{err: errPassword, command: c.CommandPath()}
			}
			if getLogin {
				known, err := client.User(c.Context(), key)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, known)
				return nil
			}
			user, password, err := a.askLogin(c.Context(), user, fromStdin)
			if err != nil {
				return err
			}
			where, err := client.Login(c.Context(), key, user, password)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "logged in to %s as %s; kept in %s\n", key, user, where)
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&user, "username", "u", "", "`name` of the user")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	f.BoolVar(&getLogin, "get-login", false, "print the name of the user who is logged in, and do nothing else")
	f.String("password", "", "refused")
	f.StringVar(&authFile, "authfile", "", "`file` of credentials")
	if err := f.MarkHidden("password"); err != nil {
		panic(err) // the flag was defined the lines before
	}
	return c
}

func (a *app) logout() *cobra.Command {
	var authFile string
	var all bool
	c := &cobra.Command{
		Use:   "logout [REGISTRY]",
		Short: "Log out of a registry",
		Long: `Forget the credentials that login or Podman kept for a registry, without one for
Docker Hub; with --all, everything in the auth file.`,
		Args: atMostOneRegistry,
		RunE: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return &usageError{err: errors.New("--all goes without a registry"), command: c.CommandPath()}
			}
			if all {
				return a.account(authFile).LogoutAll(c.Context())
			}
			return a.account(authFile).Logout(c.Context(), registryOf(args))
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "of all registries")
	c.Flags().StringVar(&authFile, "authfile", "", "`file` of credentials")
	return c
}

func (a *app) account(authFile string) *registry.Client {
	return registry.New(registry.Options{Insecure: !a.tlsVerify, AuthFile: authFile})
}

func atMostOneRegistry(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{err: fmt.Errorf("names %d registries", len(args)), command: c.CommandPath()}
	}
	return nil
}

func registryOf(args []string) string {
	if len(args) == 0 {
		return registry.Hub
	}
	return args[0]
}

// askLogin gives the name and the password: what was not given is asked for.
func (a *app) askLogin(ctx context.Context, user string, fromStdin bool) (string, string, error) {
	if fromStdin {
		if user == "" {
			return "", "", &usageError{err: errors.New("--password-stdin needs --username"), command: "bareboat login"}
		}
		// A password is no longer than this; a wrong file may be.
		text, err := io.ReadAll(io.LimitReader(a.stdin, 64<<10))
		return user, strings.TrimRight(string(text), "\r\n"), err
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", "", &usageError{err: errors.New("there is no terminal to ask for the password; give --username and --password-stdin"), command: "bareboat login"}
	}
	if user == "" {
		fmt.Fprint(a.stderr, "Username: ")
		line, err := ask(ctx, terminal, func() (string, error) { return bufio.NewReader(terminal).ReadString('\n') })
		if err != nil {
			return "", "", err
		}
		user = strings.TrimSpace(line)
	}
	fmt.Fprint(a.stderr, "Password: ")
	password, err := ask(ctx, terminal, func() (string, error) {
		word, err := term.ReadPassword(int(terminal.Fd()))
		return string(word), err
	})
	fmt.Fprintln(a.stderr)
	return user, password, err
}

// ask reads from a terminal, and leaves it as it was also on Ctrl-C.
func ask(ctx context.Context, terminal *os.File, read func() (string, error)) (string, error) {
	before, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(int(terminal.Fd()), before))
	case got := <-answers:
		if got.err != nil {
			return "", fmt.Errorf("read from the terminal: %w", got.err)
		}
		return got.text, nil
	}
}
