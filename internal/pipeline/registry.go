package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/store"
)

// destination is where images go to and come from during one command.
type destination struct {
	client   *registry.Client
	prefix   string // HOST[:PORT][/PATH]; empty: the name says it itself
	insecure bool   // no TLS that can be verified is asked for
	// embeddedAt is the address of the embedded registry, once it is needed.
	embeddedAt func() (string, error)
	// ended tells that embeddedAt gave the registry of another command, which
	// has ended meanwhile; then embeddedAt gives another one.
	ended func() bool
	// moved counts how often that was so.
	moved func() int
	// looking is held while the embedded registry's store is looked into: its
	// lock knows no two looks at once.
	looking sync.Mutex
	close   func() error
}

// openRegistry prepares the registry that images are pushed to and pulled
// from. The embedded one is opened when the first image goes there.
func (p *Pipeline) openRegistry(ctx context.Context) *destination {
	d := &destination{
		client: registry.New(registry.Options{Insecure: p.Insecure, Places: p.places()}),
		prefix: p.prefix(), insecure: p.Insecure, close: func() error { return nil },
	}
	var mu sync.Mutex // images are pushed side by side
	address, guest := "", false
	d.embeddedAt = func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if address != "" {
			return address, nil
		}
		at, stop, err := serveEmbedded(ctx)
		if err != nil {
			return "", err
		}
		address, guest = at, stop == nil
		if !guest {
			d.close = stop
		}
		return address, nil
	}
	times := 0
	d.ended = func() bool {
		mu.Lock()
		defer mu.Unlock()
		if !guest || ctx.Err() != nil || answers(ctx, address) {
			return false
		}
		address, guest = "", false
		times++
		return true
	}
	d.moved = func() int {
		mu.Lock()
		defer mu.Unlock()
		return times
	}
	return d
}

// places is the folder of notes about where blobs are; empty where there is no
// cache, which is for others to complain about.
func (p *Pipeline) places() string {
	if p.Builder == nil {
		return ""
	}
	cache, err := p.Builder.CacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "places")
}

// moves is how often the embedded registry may end that another command lent.
const moves = 10

// steadily calls do, and calls it again where it failed because the embedded
// registry was another command's that has ended.
func (d *destination) steadily(do func() error) error {
	for range moves {
		before := d.moved()
		// Of images that are pushed side by side, one sees it first.
		if err := do(); err == nil || !d.ended() && d.moved() == before {
			return err
		}
	}
	return do()
}

// answers tells whether somebody listens at an address.
func answers(ctx context.Context, address string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	return err == nil && c.Close() == nil
}

func (p *Pipeline) prefix() string {
	if p.Registry != "" {
		return p.Registry
	}
	return p.Project.Registry
}

// target is where an image with this name lies: in the chosen registry, else in
// the one that the name says, else, for names of this machine, in the embedded
// registry.
func (d *destination) target(name oci.Reference) (oci.Reference, error) {
	switch {
	case d.prefix != "":
		return name.At(d.prefix)
	case !name.IsLocal():
		return name, nil
	}
	address, err := d.embeddedAt()
	if err != nil {
		return oci.Reference{}, err
	}
	return name.At(address)
}

// RegistryDir is the folder of the embedded registry.
func RegistryDir() (string, error) {
	dir, err := dataDir()
	return filepath.Join(dir, "registry"), err
}

// dataDir is the user's folder for what has to last
// (https://specifications.freedesktop.org/basedir-spec/).
func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "bareboat"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the data folder: %w", err)
	}
	return filepath.Join(home, ".local", "share", "bareboat"), nil
}

// ownerPatience is how long the owner of the embedded registry may take to say
// where it serves, or to end.
const ownerPatience = 10 * time.Second

// serveEmbedded runs the embedded registry on a port of the loopback, for the
// time of this command. Where another process has the store, that one's
// registry is used, and stop is nil.
func serveEmbedded(ctx context.Context) (address string, stop func() error, err error) {
	dir, err := RegistryDir()
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	wait, cancel := context.WithTimeout(ctx, ownerPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := store.Acquire(dir)
		var locked *store.LockedError
		switch {
		case err == nil:
			if err := lock.Release(); err != nil {
				return "", nil, err
			}
			// Another may be quicker: then it is asked again.
			if address, stop, err = startRegistry(ctx, dir); !errors.Is(err, errQuicker) {
				return address, stop, err
			}
		case !errors.As(err, &locked):
			return "", nil, err
		case locked.Addr != "" && answers(ctx, nearby(locked.Addr)):
			return nearby(locked.Addr), nil, nil
		}
		select {
		case <-wait.Done():
			return "", nil, err
		case <-tick.C: // the owner does not serve yet, or is about to end
		}
	}
}

// nearby is the address of a listener as this machine reaches it: one that
// listens everywhere does so on the loopback, where no TLS is asked of it.
func nearby(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// Push builds the images of services and pushes them, and gives them by the
// names that they have at the registry.
func (p *Pipeline) Push(ctx context.Context, services []string) (images []Image, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	return p.push(ctx, d, services)
}

func (p *Pipeline) push(ctx context.Context, d *destination, services []string) ([]Image, error) {
	return p.each(ctx, services, func(ctx context.Context, s source) (Image, error) {
		look, err := p.look(ctx, s)
		if err != nil {
			return Image{}, err
		}
		if look.Known() {
			to, there, err := d.has(ctx, s.service.Image, look.Image.Digest)
			if err != nil {
				return Image{}, err
			}
			if there && p.isTold(d.name(s.service.Image, to), look.Image.Digest) {
				p.notify(Event{Subject: s.service.Name, Text: "nothing to do: the registry has it"})
				return s.made(d.pinned(s.service.Name, d.name(s.service.Image, to), look.Image.Digest), look), nil
			}
		}
		began := time.Now()
		made, err := p.make(ctx, s)
		if err != nil {
			return Image{}, err
		}
		to, err := p.send(ctx, d, s.service.Name, made.Image)
		if err != nil {
			return Image{}, err
		}
		if err := p.tell(ctx, d, s, made, to, began); err != nil {
			return Image{}, err
		}
		return s.made(d.pinned(s.service.Name, d.name(made.Image.Name, to), made.Image.Digest), made), nil
	})
}

// has asks the registry whether an image's name stands for a digest there.
func (d *destination) has(ctx context.Context, name oci.Reference, digest oci.Digest) (to oci.Reference, there bool, err error) {
	if d.prefix == "" && name.IsLocal() && d.stores(name, digest) {
		return name, true, nil
	}
	err = d.steadily(func() (err error) {
		if to, err = d.target(name); err != nil {
			return err
		}
		there, err = d.client.Has(ctx, to, digest)
		return err
	})
	return to, there, err
}

// stores tells whether the embedded registry's store has an image under a name.
// To look into it is quicker than to serve it; where that cannot tell, the
// answer is no.
func (d *destination) stores(name oci.Reference, digest oci.Digest) bool {
	dir, err := RegistryDir()
	if err != nil {
		return false
	}
	if name.Tag == "" {
		name.Tag = "latest"
	}
	d.looking.Lock()
	defer d.looking.Unlock()
	found, err := store.Tagged(dir, name.Repository, name.Tag)
	return err == nil && found == digest
}

// send pushes an image and gives its name at the registry.
func (p *Pipeline) send(ctx context.Context, d *destination, service string, img oci.Image) (to oci.Reference, err error) {
	var done registry.Pushed
	err = d.steadily(func() (err error) {
		if to, err = d.target(img.Name); err != nil {
			return err
		}
		done, err = d.client.Push(ctx, img.Layout, img.Digest, to, p.transfer(service))
		return err
	})
	if err == nil {
		p.notify(Event{Subject: service, Text: pushedText(done)})
	}
	return to, err
}

// name is how an image at a registry is told to others. The embedded registry
// has another port each time: there the image's own name is the one that holds.
func (d *destination) name(own, at oci.Reference) oci.Reference {
	if d.prefix == "" && own.IsLocal() {
		return own
	}
	return at
}

func (d *destination) pinned(service string, ref oci.Reference, digest oci.Digest) Image {
	i := pinned(service, ref, digest)
	i.Insecure = d.insecure
	return i
}

func pushedText(d registry.Pushed) string {
	if d.Sent+d.Mounted == 0 {
		return "the registry has it already"
	}
	text := fmt.Sprintf("pushed %d of %d blobs, %s, %d requests", d.Sent, d.Sent+d.Skipped, humanize.Bytes(uint64(d.BytesSent)), d.Requests)
	if d.Mounted > 0 {
		text += fmt.Sprintf(" (%d from other repositories)", d.Mounted)
	}
	return text
}

// transfer sums up the blobs of one image.
func (p *Pipeline) transfer(service string) registry.Progress {
	sizes, moved := map[oci.Digest]int64{}, map[oci.Digest]int64{}
	return func(e registry.Event) {
		switch e.State {
		case registry.Queued:
			sizes[e.Digest] = e.Size
		case registry.Moving:
			moved[e.Digest] = e.Done
		case registry.Finished, registry.Present:
			moved[e.Digest] = e.Size
		}
		event := Event{Subject: service}
		for d, size := range sizes {
			event.Total += size
			event.Done += min(moved[d], size)
		}
		p.notify(event)
	}
}

// resolve gives a service's image as the registry has it now.
func (d *destination) resolve(ctx context.Context, s config.Service) (Image, error) {
	at := s.Image
	var found oci.Descriptor
	err := d.steadily(func() (err error) {
		if s.Built() {
			if at, err = d.target(s.Image); err != nil {
				return err
			}
		}
		found, err = d.client.Resolve(ctx, at)
		return err
	})
	if err != nil {
		return Image{}, err
	}
	return d.pinned(s.Name, d.name(s.Image, at), found.Digest), nil
}
