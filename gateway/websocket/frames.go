// Package websocket knows where the frames of a WebSocket (RFC 6455) end, and how one end says goodbye. It knows nothing of
// what is in them, nor of connections.
package websocket

import (
	"encoding/binary"
	"math/rand/v2"
)

// Of RFC 6455, section 5.2.
const (
	opcodeClose  = 0x8
	opcodeMask   = 0x0f
	finalBit     = 0x80
	maskedBit    = 0x80
	lengthMask   = 0x7f
	length16     = 126
	length64     = 127
	goingAway    = 1001 // section 7.4.1
	maskKeyBytes = 4
)

// Frames follows what one end of a WebSocket sends, to know where a frame of another may stand. Control frames may stand
// between the frames of one message (section 5.4), so it need not know of messages. The zero value stands before the first
// frame. It is not safe for concurrent use.
type Frames struct {
	header [10]byte // but for the masking key
	have   int      // bytes of header
	left   uint64   // bytes that are still to come of the frame after its header
	closed bool
}

// Between says whether no frame is under way.
func (f *Frames) Between() bool { return f.have == 0 && f.left == 0 }

// Closed says whether a Close frame has begun.
func (f *Frames) Closed() bool { return f.closed }

// Next takes one frame, or as much of it as p has, and says how many bytes those are, and whether the first Close frame began.
func (f *Frames) Next(p []byte) (n int, goodbye bool) {
	for f.left == 0 && n < len(p) {
		f.header[f.have] = p[n]
		f.have++
		n++
		var length uint64
		switch l := f.header[1] & lengthMask; {
		case f.have < 2, l == length16 && f.have < 4, l == length64 && f.have < 10:
			continue
		case l == length16:
			length = uint64(binary.BigEndian.Uint16(f.header[2:]))
		case l == length64:
			length = binary.BigEndian.Uint64(f.header[2:])
		default:
			length = uint64(l)
		}
		if f.header[1]&maskedBit != 0 {
			length += maskKeyBytes
		}
		if f.header[0]&opcodeMask == opcodeClose && !f.closed {
			f.closed, goodbye = true, true
		}
		f.have, f.left = 0, length
		if length == 0 {
			return n, goodbye
		}
	}
	rest := min(f.left, uint64(len(p)-n))
	f.left -= rest
	return n + int(rest), goodbye // no more than len(p)
}

// GoingAway is a Close frame that says that an end goes away. What goes to a server is masked (section 5.3).
func GoingAway(toServer bool) []byte {
	frame := []byte{finalBit | opcodeClose, 2}
	status := binary.BigEndian.AppendUint16(nil, goingAway)
	if toServer {
		key := binary.BigEndian.AppendUint32(nil, rand.Uint32())
		frame[1] |= maskedBit
		frame = append(frame, key...)
		for i := range status {
			status[i] ^= key[i]
		}
	}
	return append(frame, status...)
}
