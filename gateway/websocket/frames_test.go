package websocket_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/gateway/websocket"
)

// follow feeds frames a stream in pieces of a size, and tells where frames end and where the first Close frame is noticed.
func follow(stream []byte, size int) (ends []int, goodbyes int, between bool) {
	var f websocket.Frames
	at := 0
	for len(stream) > 0 {
		piece := stream[:min(size, len(stream))]
		stream = stream[len(piece):]
		for len(piece) > 0 {
			n, goodbye := f.Next(piece)
			piece, at = piece[n:], at+n
			if goodbye {
				goodbyes++
			}
			if f.Between() {
				ends = append(ends, at)
			}
		}
	}
	return ends, goodbyes, f.Between()
}

func TestTheEndOfEachFrameIsKnown(t *testing.T) {
	payload := func(n int) []byte { return bytes.Repeat([]byte{0x88}, n) } // looks like a Close frame, if it is taken for a header
	for name, c := range map[string]struct {
		stream   []byte
		ends     []int
		goodbyes int
	}{
		"nothing":             {nil, nil, 0},
		"no payload":          {[]byte{0x81, 0}, []int{2}, 0},
		"short":               {append([]byte{0x81, 3}, payload(3)...), []int{5}, 0},
		"short and masked":    {append([]byte{0x81, 0x83}, payload(4+3)...), []int{9}, 0},
		"16 bits":             {append([]byte{0x82, 126, 1, 0}, payload(256)...), []int{260}, 0},
		"16 bits and masked":  {append([]byte{0x82, 0xfe, 1, 0}, payload(4+256)...), []int{264}, 0},
		"64 bits":             {append([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, payload(65536)...), []int{65546}, 0},
		"64 bits, incomplete": {append([]byte{0x82, 127, 0x7f, 0, 0, 0, 0, 0, 0, 0}, payload(100)...), nil, 0},
		"fragments, ping between, close": {
			[]byte{0x01, 1, 'a', 0x89, 0, 0x80, 1, 'b', 0x88, 2, 0x03, 0xe8, 0x88, 0}, []int{3, 5, 8, 12, 14}, 1,
		},
		"header incomplete": {[]byte{0x81, 0, 0x82, 126, 1}, []int{2}, 0},
		"ours":              {append(websocket.GoingAway(false), websocket.GoingAway(true)...), []int{4, 12}, 1},
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			ends, goodbyes, between := follow(c.stream, size)
			if diff := cmp.Diff(c.ends, ends); diff != "" || goodbyes != c.goodbyes {
				t.Errorf("%s, in pieces of %d: %d Close frames; %s", name, size, goodbyes, diff)
			}
			if want := len(c.stream) == 0 || len(c.ends) > 0 && c.ends[len(c.ends)-1] == len(c.stream); between != want {
				t.Errorf("%s, in pieces of %d: between frames at the end: %v", name, size, between)
			}
		}
	}
}

func TestOurCloseFrameSaysThatThisEndGoesAway(t *testing.T) {
	if diff := cmp.Diff([]byte{0x88, 2, 0x03, 0xe9}, websocket.GoingAway(false)); diff != "" {
		t.Error(diff)
	}
	masked := websocket.GoingAway(true)
	if diff := cmp.Diff([]byte{0x88, 0x82}, masked[:2]); diff != "" || len(masked) != 8 {
		t.Fatalf("%x", masked)
	}
	if status := []byte{masked[6] ^ masked[2], masked[7] ^ masked[3]}; !bytes.Equal(status, []byte{0x03, 0xe9}) {
		t.Errorf("%x", status)
	}
}

func FuzzFramesEndWhereTheyEndHoweverTheyArrive(f *testing.F) {
	f.Add([]byte{0x81, 0x83, 1, 2, 3, 4, 'a', 'b', 'c', 0x88, 0}, 1)
	f.Add([]byte{0x82, 126, 0, 1, 'x', 0x89, 0}, 3)
	f.Add([]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'}, 2)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 1 {
			return
		}
		ends, goodbyes, between := follow(stream, len(stream)+1)
		gotEnds, gotGoodbyes, gotBetween := follow(stream, size)
		if diff := cmp.Diff(ends, gotEnds); diff != "" || goodbyes != gotGoodbyes || between != gotBetween {
			t.Errorf("in pieces of %d: %d %v, in one: %d %v; %s", size, gotGoodbyes, gotBetween, goodbyes, between, diff)
		}
	})
}
