package cri

import "google.golang.org/protobuf/proto"

// chunkBytes is how large one message of a streamed list grows: few messages
// for any node, each far below the bound of every client.
const chunkBytes = 1 << 20

// inChunks sends a list in messages of at least one item each. Every item is
// in exactly one message; an empty list is no message, just the end.
func inChunks[T proto.Message](items []T, send func([]T) error) error {
	for len(items) > 0 {
		n := 1
		for size := proto.Size(items[0]); n < len(items); n++ {
			if size += proto.Size(items[n]); size > chunkBytes {
				break
			}
		}
		if err := send(items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}
