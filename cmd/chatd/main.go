// Command chatd serves the chat.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"bareboat/chat"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := chat.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
