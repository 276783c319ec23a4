// Serves a hub with philippseith/signalr: ./hub '{"port": 8080, "pod": "hub-1"}'
//
// It answers as examples/chat does, as far as the clients of the tests ask.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/philippseith/signalr"
)

type options struct {
	Port int    `json:"port"`
	Pod  string `json:"pod"`
}

type whereabouts struct {
	Pod          string `json:"pod"`
	ConnectionID string `json:"connectionId"`
	Transport    string `json:"transport"`
}

type chat struct {
	signalr.Hub
	pod string
}

func (c *chat) WhoAmI() whereabouts {
	return whereabouts{c.pod, c.ConnectionID(), string(signalr.TransportWebSockets)}
}

func (c *chat) Echo(text string) string { return text }

// silent takes the library's log.
type silent struct{}

func (silent) Log(...any) error { return nil }

func main() {
	var asked options
	if err := json.Unmarshal([]byte(os.Args[1]), &asked); err != nil {
		panic(err)
	}
	// Its other transport, server-sent events, has the token of version 1 for the connection's id, which the tests' clients compare.
	server, err := signalr.NewServer(context.Background(),
		signalr.HubFactory(func() signalr.HubInterface { return &chat{pod: asked.Pod} }),
		signalr.HTTPTransports(signalr.TransportWebSockets),
		// On a busy machine more time than usual passes between the requests of a test.
		signalr.HandshakeTimeout(time.Hour),
		signalr.TimeoutInterval(time.Hour),
		signalr.Logger(silent{}, false))
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	server.MapHTTP(signalr.WithHTTPServeMux(mux), "/chat")
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	named := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("x-pod", asked.Pod)
		mux.ServeHTTP(writer, request)
	})
	panic(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", asked.Port), named))
}
