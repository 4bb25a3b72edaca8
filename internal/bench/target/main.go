// Command target is a service to be released under load: it answers, takes its
// time, takes uploads, counts, and echoes, and can be told to be broken.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// The faults that TARGET_FAULT may name.
const (
	faultStart    = "start"    // it crashes when it starts
	faultNever    = "never"    // it is never healthy
	faultLater    = "later"    // it is healthy, and soon no more
	faultStubborn = "stubborn" // it takes no notice of being told to stop
)

const (
	listen    = ":8000"
	slowness  = 1500 * time.Millisecond
	failAfter = 3 // looks at its health
	grace     = 8 * time.Second
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "health" {
		os.Exit(health())
	}
	if err := serve(); err != nil {
		log.Fatal("target: ", err)
	}
}

func health() int {
	resp, err := http.Get("http://127.0.0.1" + listen + "/health")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		fmt.Printf("%s: %s", resp.Status, text)
		return 1
	}
	return 0
}

// target is what the service remembers.
type target struct {
	fault string
	file  string // of the keys that were counted, which the releases share
	looks atomic.Int64

	mu    sync.Mutex
	conns map[*websocket.Conn]bool
}

func serve() error {
	t := &target{fault: os.Getenv("TARGET_FAULT"), file: filepath.Join("/data", "posts"), conns: map[*websocket.Conn]bool{}}
	if t.fault == faultStart {
		return errors.New("it was told to crash")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", t.health)
	mux.HandleFunc("POST /drain", t.drain)
	mux.HandleFunc("GET /t/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("BAREBOAT_RELEASE")) })
	mux.HandleFunc("GET /t/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(slowness)
		fmt.Fprintln(w, "at last")
	})
	mux.HandleFunc("POST /t/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, n)
	})
	mux.HandleFunc("POST /t/post", t.post)
	mux.HandleFunc("GET /t/posted", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, t.file) })
	mux.HandleFunc("GET /t/echo", t.echo)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if t.fault == faultStubborn {
		return <-ended
	}
	t.sendAway()
	last, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return server.Shutdown(last)
}

func (t *target) health(w http.ResponseWriter, _ *http.Request) {
	if n := t.looks.Add(1); t.fault == faultNever || t.fault == faultLater && n >= failAfter {
		http.Error(w, "it was told to be unwell", http.StatusServiceUnavailable)
	}
}

// post counts a key: one line is written at once, so that two releases can write
// side by side.
func (t *target) post(w http.ResponseWriter, r *http.Request) {
	f, err := os.OpenFile(t.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(r.Header.Get("Idempotency-Key") + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (t *target) echo(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	t.mu.Lock()
	t.conns[c] = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
	}()
	for {
		kind, data, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, data); err != nil {
			return
		}
	}
}

func (t *target) drain(http.ResponseWriter, *http.Request) {
	if t.fault != faultStubborn {
		t.sendAway()
	}
}

// sendAway closes all WebSockets as a service does that restarts.
func (t *target) sendAway() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		bye := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "service restart")
		_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // it may be gone
	}
}
