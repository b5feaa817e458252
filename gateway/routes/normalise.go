package routes

// segmentLimit is the longest segment, in bytes.
const segmentLimit = 57

// Segment is how a display name, or the name of an entry, stands in a URL: each run of characters other than ASCII
// letters and digits becomes one "-", letters become small, one "-" at the end goes, what is over 57 bytes goes, one "-"
// at the start goes. The order matters: what was cut to 57 bytes may end in "-". The result may be empty.
func Segment(name string) string {
	out := make([]byte, 0, len(name))
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			out = append(out, c)
		case 'A' <= c && c <= 'Z':
			out = append(out, c+'a'-'A')
		case len(out) == 0 || out[len(out)-1] != '-':
			out = append(out, '-')
		}
	}
	if n := len(out); n > 0 && out[n-1] == '-' {
		out = out[:n-1]
	}
	if len(out) > segmentLimit {
		out = out[:segmentLimit]
	}
	if len(out) > 0 && out[0] == '-' {
		out = out[1:]
	}
	return string(out)
}
