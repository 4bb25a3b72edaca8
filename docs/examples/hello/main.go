// Command hello is a small web program to try bareboat with.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const greeting = "Ahoy"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "health" {
		os.Exit(health())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s from release %s\n", greeting, os.Getenv("BAREBOAT_RELEASE"))
	})
	server := &http.Server{Addr: address(), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		<-ctx.Done()
		// Requests under way are finished; that is half of a release that
		// nobody notices.
		_ = server.Shutdown(context.Background())
	}()
	log.Printf("listening on %s", server.Addr)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-finished // the server takes no more requests, but goes on with those that it has
}

func address() string {
	if a := os.Getenv("HELLO_LISTEN"); a != "" {
		return a
	}
	return ":8000"
}

// health is the container's own check: the image has no shell and no curl.
func health() int {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get("http://127.0.0.1" + address())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}
