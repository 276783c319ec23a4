// Drives philippseith/signalr: ./client '{"url": "http://127.0.0.1:8080", "hub": "/chat", …}'
//
// The options are those of `GoClient` in tests/testbed/src/clients/go.rs; one JSON report goes to stdout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/philippseith/signalr"
)

type options struct {
	URL              string                `json:"url"`
	Hub              string                `json:"hub"`
	Transport        signalr.TransportType `json:"transport"`
	NegotiateVersion int                   `json:"negotiateVersion"`
	Cookies          string                `json:"cookies"`
	Connects         int                   `json:"connects"`
	Parallel         int                   `json:"parallel"`
	HoldMs           int                   `json:"holdMs"`
	TryMs            int                   `json:"tryMs"`
}

// try is one connection, as the report has it.
type try struct {
	Ok            bool    `json:"ok"`
	NegotiatedPod *string `json:"negotiatedPod"`
	AnsweredPod   *string `json:"answeredPod"`
	ConnectionID  *string `json:"connectionId"`
	Transport     *string `json:"transport"`
	Error         *string `json:"error"`
	Cut           *string `json:"cut"`
	Milliseconds  int64   `json:"milliseconds"`
}

// watch is the HTTP client that negotiates. Cookies are the library's own business: it copies those of the answer
// to the WebSocket. This only notes the pod, and takes cookies out if it is asked to.
type watch struct {
	refuseCookies bool
	seen          *try
}

func (w watch) Do(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(request.URL.Path, "/negotiate") {
		pod := response.Header.Get("x-pod")
		w.seen.NegotiatedPod = &pod
	}
	if w.refuseCookies {
		response.Header.Del("Set-Cookie")
	}
	return response, nil
}

// silent takes the library's own account of what happens: failures are reported as tries.
type silent struct{}

func (silent) Log(...any) error { return nil }

// invoke returns the answer. Beside the value there comes an empty result, before or after it.
func invoke(ctx context.Context, client signalr.Client, method string, arguments ...any) (any, error) {
	results := client.Invoke(method, arguments...)
	for {
		select {
		case result, open := <-results:
			if result.Value != nil || result.Error != nil {
				return result.Value, result.Error
			}
			if !open {
				return nil, fmt.Errorf("%s has no result", method)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer to %s: %w", method, ctx.Err())
		}
	}
}

func prove(ctx context.Context, client signalr.Client, asked options, seen *try) error {
	answer, err := invoke(ctx, client, "WhoAmI")
	if err != nil {
		return err
	}
	me, isObject := answer.(map[string]any)
	if !isObject {
		return fmt.Errorf("no object: %v", answer)
	}
	text := func(name string) *string {
		value, _ := me[name].(string)
		return &value
	}
	seen.AnsweredPod, seen.Transport = text("pod"), text("transport")
	hello := fmt.Sprintf("hello %d äöü", time.Now().UnixNano())
	echo, err := invoke(ctx, client, "Echo", hello)
	switch {
	case err != nil:
		return err
	case echo != hello:
		return fmt.Errorf("the echo of %q is %v", hello, echo)
	// With version 0 the client has only what it connects by, which the gateway may have made its own.
	case asked.NegotiateVersion > 0 && *text("connectionId") != *seen.ConnectionID:
		return fmt.Errorf("the client is %s, to the hub it is %s", *seen.ConnectionID, *text("connectionId"))
	case *seen.NegotiatedPod != *seen.AnsweredPod:
		return fmt.Errorf("%s negotiated, %s answered", *seen.NegotiatedPod, *seen.AnsweredPod)
	}
	return nil
}

// connect returns a client that has started; it has no way to reconnect, so it closes when its connection does.
func connect(ctx context.Context, asked options, seen *try) (signalr.Client, error) {
	connection, err := signalr.NewHTTPConnection(ctx, asked.URL+asked.Hub,
		signalr.WithHTTPClient(watch{asked.Cookies == "refused", seen}),
		signalr.WithTransports(asked.Transport),
		signalr.WithNegotiateVersion(asked.NegotiateVersion))
	if err != nil {
		return nil, err
	}
	id := connection.ConnectionID()
	seen.ConnectionID = &id
	client, err := signalr.NewClient(context.Background(),
		signalr.WithConnection(connection),
		signalr.HandshakeTimeout(time.Duration(asked.TryMs)*time.Millisecond),
		signalr.Logger(silent{}, false))
	if err != nil {
		return nil, err
	}
	client.Start()
	return client, nil
}

func attempt(asked options) (seen try) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(asked.TryMs)*time.Millisecond)
	defer cancel()
	began := time.Now()
	client, err := connect(ctx, asked, &seen)
	if err == nil {
		defer client.Stop()
		err = prove(ctx, client, asked, &seen)
	}
	seen.Milliseconds = time.Since(began).Milliseconds()
	if err != nil {
		failure := err.Error()
		seen.Error = &failure
		return seen
	}
	seen.Ok = true
	hold, cancel := context.WithTimeout(context.Background(), time.Duration(asked.HoldMs)*time.Millisecond)
	defer cancel()
	if err := <-client.WaitForState(hold, signalr.ClientClosed); !errors.Is(err, context.DeadlineExceeded) {
		cut := fmt.Sprintf("closed by the other side: %v", client.Err())
		seen.Cut = &cut
	}
	return seen
}

func main() {
	var asked options
	if err := json.Unmarshal([]byte(os.Args[1]), &asked); err != nil {
		panic(err)
	}
	tries := make([]try, asked.Connects)
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range asked.Parallel {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range numbers {
				tries[number] = attempt(asked)
			}
		}()
	}
	for number := range tries {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	connected := 0
	for _, one := range tries {
		if one.Ok {
			connected++
		}
	}
	report := map[string]any{"tried": len(tries), "connected": connected, "tries": tries}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		panic(err)
	}
}
