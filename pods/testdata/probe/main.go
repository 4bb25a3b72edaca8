// Command probe is what the tests run in containers.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Println("probe: want a command")
		os.Exit(2)
	}
	commands := map[string]func([]string) error{
		"serve": serve, "health": health, "get": get, "lines": lines, "cat": cat, "tty": tty,
		"exit": exit, "env": env, "id": id, "touch": touch, "status": status,
	}
	command, ok := commands[os.Args[1]]
	if !ok {
		fmt.Println("probe: unknown command", os.Args[1])
		os.Exit(2)
	}
	if err := command(os.Args[2:]); err != nil {
		fmt.Println("probe:", err)
		os.Exit(1)
	}
}

// serve ADDRESS answers HTTP until SIGTERM, drains for DRAIN, and exits with EXIT.
func serve(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			fmt.Println("hangup")
		}
	}()
	l, err := listen(args[0])
	if err != nil {
		return err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "hello from %s", host)
	}))
	fmt.Println("ready")
	<-ctx.Done()
	drain, _ := time.ParseDuration(os.Getenv("DRAIN"))
	time.Sleep(drain)
	fmt.Println("networks at the end:", strings.Join(interfaces(), " "))
	return exit([]string{os.Getenv("EXIT")})
}

func listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		os.Remove(path)
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

func interfaces() []string {
	list, _ := net.Interfaces()
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// health FILE is healthy once the file is there.
func health(args []string) error {
	if _, err := os.Stat(args[0]); err != nil {
		return fmt.Errorf("not ready: %s is missing", args[0])
	}
	fmt.Println("all is well")
	return nil
}

// get ADDRESS prints the answer to GET /.
func get(args []string) error {
	client := http.Client{Timeout: 10 * time.Second}
	url := "http://" + args[0] + "/"
	if path, ok := strings.CutPrefix(args[0], "unix:"); ok {
		url = "http://socket/"
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
	}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// lines N writes numbered lines, then one for each SIGHUP until SIGTERM.
func lines(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	for i := range n {
		fmt.Println("out", i)
		fmt.Fprintln(os.Stderr, "err", i)
	}
	fmt.Println("written")
	for s := range signals {
		if s == syscall.SIGTERM {
			return nil
		}
		fmt.Println("hangup")
	}
	return nil
}

func cat([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	fmt.Fprintln(os.Stderr, "end of input")
	return err
}

// tty prints the terminal's size at the start and after each change until it is
// sent a line.
func tty([]string) error {
	size := func() error {
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("no terminal: %w", err)
		}
		fmt.Printf("size %dx%d\n", ws.Col, ws.Row)
		return nil
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	if err := size(); err != nil {
		return err
	}
	go func() {
		for range changed {
			size()
		}
	}()
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Printf("read %q\n", strings.TrimSpace(line))
	return err
}

func exit(args []string) error {
	if len(args) == 0 || args[0] == "" {
		os.Exit(0)
	}
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 {
		fmt.Println(strings.Join(args[1:], " "))
	}
	os.Exit(code)
	return nil
}

func env(args []string) error {
	for _, name := range args {
		fmt.Printf("%s=%s\n", name, os.Getenv(name))
	}
	return nil
}

func id([]string) error {
	dir, err := os.Getwd()
	fmt.Printf("uid %d gid %d in %s\n", os.Getuid(), os.Getgid(), dir)
	return err
}

// touch PATH… makes files, and says which could not be made.
func touch(args []string) error {
	var errs []error
	for _, path := range args {
		f, err := os.Create(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// status FIELD… prints lines of /proc/1/status.
func status(args []string) error {
	text, err := os.ReadFile("/proc/1/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		for _, field := range args {
			if strings.HasPrefix(line, field+":") {
				fmt.Print(strings.Join(strings.Fields(line), " "), "\n")
			}
		}
	}
	return nil
}
