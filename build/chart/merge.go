package main

import (
	"fmt"
	"slices"
	"strings"
)

// A hunk says that lines[from:to] of a base text are others where a value of the chart is true.
type hunk struct {
	from, to int
	other    []string
	value    string
}

// difference gives what must be replaced in base to get other, in the order of base. It keeps a longest common subsequence.
func difference(base, other []string) []hunk {
	// common[i][j] is the length of that of base[i:] and other[j:].
	common := make([][]int, len(base)+1)
	for i := range common {
		common[i] = make([]int, len(other)+1)
	}
	for i := len(base) - 1; i >= 0; i-- {
		for j := len(other) - 1; j >= 0; j-- {
			if base[i] == other[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var hunks []hunk
	for i, j := 0, 0; i < len(base) || j < len(other); {
		h := hunk{from: i}
		begin := j
		for (i < len(base) || j < len(other)) && (i == len(base) || j == len(other) || base[i] != other[j]) {
			if j == len(other) || (i < len(base) && common[i+1][j] >= common[i][j+1]) {
				i++
			} else {
				j++
			}
		}
		if i > h.from || j > begin {
			h.to, h.other = i, other[begin:j]
			hunks = append(hunks, h)
		}
		for i < len(base) && j < len(other) && base[i] == other[j] {
			i, j = i+1, j+1
		}
	}
	return hunks
}

// merge puts hunks into a text, each under its condition. Two may not replace the same line: which of them holds if both
// conditions do could not be said.
func merge(base []string, hunks []hunk) ([]string, error) {
	slices.SortStableFunc(hunks, func(a, b hunk) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.to - b.to // what only inserts comes first
	})
	var merged []string
	at := 0
	for _, h := range hunks {
		if h.from < at {
			return nil, fmt.Errorf("line %q is changed by %s and by another feature", base[h.from], h.value)
		}
		merged = append(merged, base[at:h.from]...)
		at = h.to
		is, first, second := h.value, h.other, base[h.from:h.to]
		if len(first) == 0 || (len(second) > 0 && strings.HasPrefix(is, "not ")) {
			is, first, second = not(is), second, first
		}
		merged = append(append(merged, "{{- if "+is+" }}"), first...)
		if len(second) > 0 {
			merged = append(append(merged, "{{- else }}"), second...)
		}
		merged = append(merged, "{{- end }}")
	}
	return append(merged, base[at:]...), nil
}
