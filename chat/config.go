package chat

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"bareboat/chat/hub"
)

// ErrConfig says that a setting is malformed. Its message names the setting.
var ErrConfig = errors.New("invalid configuration")

// Config is what a server can be told.
type Config struct {
	Listen  string         // unix:PATH or HOST:PORT
	Data    string         // folder of the database
	Origins []string       // pages that may open a session; none means those of the same host
	Trusted []netip.Prefix // peers whose forwarding headers count; a unix socket's always do
	Release string         // shown to clients
	Drain   time.Duration  // at most this long from SIGTERM to the exit
	Limits  hub.Limits
}

// DefaultConfig is a server for the machine it runs on.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", Data: defaultData(), Drain: 8 * time.Second, Limits: hub.DefaultLimits()}
}

// defaultData is where an image mounts its volume, else a folder of the
// working directory.
func defaultData() string {
	if info, err := os.Stat("/data"); err == nil && info.IsDir() {
		return "/data"
	}
	return "data"
}

// setting is one thing that can be set, by a variable or a flag.
type setting struct {
	flag, help string
	set        func(c *Config, value string) error
}

func (s setting) variable() string {
	return "CHATD_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

func settings() []setting {
	return []setting{
		{"listen", "where to listen: unix:PATH or HOST:PORT", setListen},
		{"data", "folder of the database", func(c *Config, v string) error { c.Data = v; return nil }},
		{"origins", "pages that may connect, as SCHEME://HOST[:PORT], with commas (default: those of the same host)", setOrigins},
		{"trusted", "proxies whose X-Real-IP and X-Forwarded-* count, as IP or IP/BITS, with commas", setTrusted},
		{"release", "name of the release, shown to clients", setRelease},
		{"drain", "longest time from SIGTERM to the exit, like 8s", setDrain},
		{"rate", "frames a second that one connection may send", setRate},
		{"burst", "frames that one connection may send at once", setBurst},
		{"sessions", "connections at a time", setSessions},
	}
}

// LoadConfig reads the environment and then the flags, which win. An error
// matches ErrConfig, flag.ErrHelp, or is one of usage.
func LoadConfig(args []string, getenv func(string) string, flags *flag.FlagSet) (Config, error) {
	c := DefaultConfig()
	for _, s := range settings() {
		if value := getenv(s.variable()); value != "" {
			if err := s.set(&c, value); err != nil {
				return c, fmt.Errorf("%w: %s=%q: %w", ErrConfig, s.variable(), value, err)
			}
		}
		flags.Func(s.flag, fmt.Sprintf("%s ($%s)", s.help, s.variable()), func(value string) error { return s.set(&c, value) })
	}
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return c, nil
}

func setListen(c *Config, value string) error {
	if path, ok := strings.CutPrefix(value, "unix:"); ok {
		if path == "" {
			return errors.New("want unix:PATH")
		}
		c.Listen = value
		return nil
	}
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return errors.New("want unix:PATH or HOST:PORT")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("want a port from 0 to 65535")
	}
	c.Listen = value
	return nil
}

func setOrigins(c *Config, value string) error {
	c.Origins = nil
	for origin := range strings.SplitSeq(value, ",") {
		origin = strings.ToLower(strings.TrimSpace(origin))
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return errors.New("want SCHEME://HOST[:PORT], with commas")
		}
		c.Origins = append(c.Origins, origin)
	}
	return nil
}

func setTrusted(c *Config, value string) error {
	c.Trusted = nil
	for text := range strings.SplitSeq(value, ",") {
		text = strings.TrimSpace(text)
		if addr, err := netip.ParseAddr(text); err == nil {
			c.Trusted = append(c.Trusted, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return errors.New("want IP or IP/BITS, with commas")
		}
		c.Trusted = append(c.Trusted, prefix)
	}
	return nil
}

func setRelease(c *Config, value string) error {
	for _, b := range []byte(value) {
		if b < ' ' || b > '~' {
			return errors.New("want printable ASCII")
		}
	}
	c.Release = value
	return nil
}

func setDrain(c *Config, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Second || d > time.Hour {
		return errors.New("want a time from 1s to 1h")
	}
	c.Drain = d
	return nil
}

func setRate(c *Config, value string) error {
	rate, err := strconv.ParseFloat(value, 64)
	if err != nil || !(rate > 0 && rate <= 1e6) {
		return errors.New("want a number above 0")
	}
	c.Limits.Rate = rate
	return nil
}

func setBurst(c *Config, value string) error {
	return setCount(&c.Limits.Burst, value)
}

func setSessions(c *Config, value string) error {
	return setCount(&c.Limits.Sessions, value)
}

func setCount(to *int, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 1e6 {
		return errors.New("want a whole number from 1 to 1000000")
	}
	*to = n
	return nil
}
