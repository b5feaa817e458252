package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// HeaderRequestID is by what a caller names a call. The target sees what the caller sent; answers that are errors of the
// gateway's hold what stands in the access line.
const HeaderRequestID = "X-Request-Id"

// requestIDLimit is the longest id of a caller's that is taken, in bytes.
const requestIDLimit = 128

// requestID is what the caller calls this call, or a name of our own if that is missing or cannot stand in a log.
func requestID(h http.Header) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+/=@"
	if id := h.Get(HeaderRequestID); id != "" && len(id) <= requestIDLimit && strings.Trim(id, plain) == "" {
		return id
	}
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	return hex.EncodeToString(id[:])
}
