// usage: ping DIRECT_ENDPOINT SERVICE VERSION
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"

	zcbroker "zcbroker.dev/client/go"
)

func main() {
	daemon, err := zcbroker.Connect(context.Background(), os.Args[1], zcbroker.Options{Service: os.Args[2], Version: os.Args[3]})
	if err != nil {
		log.Fatal(err)
	}
	defer daemon.Close()
	ping := []byte{8, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0} // a daemon answers with the same
	pong := make([]byte, len(ping))
	daemon.Write(ping)
	if _, err := io.ReadFull(daemon, pong); err != nil || !bytes.Equal(ping, pong) {
		log.Fatalf("no pong: %v", err)
	}
	fmt.Printf("pong by %s at %s\n", daemon.Lane, daemon.Endpoint)
}
