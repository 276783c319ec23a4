// Fetches the module of an image by Istio's own code, as its agent does in a gateway's pod, and writes it into a file.
//
//	istio-fetch IMAGE FILE
package main

import (
	"context"
	"log"
	"os"

	"istio.io/istio/pkg/wasm"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: istio-fetch IMAGE FILE")
	}
	fetcher := wasm.NewImageFetcher(context.Background(), wasm.ImageFetcherOption{})
	fetch, _, err := fetcher.PrepareFetch(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	module, err := fetch()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], module, 0o644); err != nil {
		log.Fatal(err)
	}
}
