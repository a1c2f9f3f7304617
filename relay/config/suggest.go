package config

import "strings"

// didYouMean is " (did you mean X?)" for the candidate that is nearest to a
// word, or "" when none is near.
func didYouMean(word string, candidates []string) string {
	if best := nearest(word, candidates); best != "" {
		return " (did you mean " + best + "?)"
	}
	return ""
}

// nearest is the candidate at the smallest edit distance, if that is at most a
// third of the word: further away, a suggestion is a riddle, unless the two
// begin alike (retries, retry).
func nearest(word string, candidates []string) string {
	if len(word) > 100 {
		return "" // the distance costs the product of the lengths
	}
	best, least := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if d := distance(plainWord(word), plainWord(c)); d < least {
			best, least = c, d
		}
	}
	for _, c := range candidates {
		if best == "" && alike(plainWord(word), plainWord(c)) {
			best = c
		}
	}
	return best
}

// alike tells whether two words share all but their last three letters.
func alike(a, b string) bool {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n >= 4 && len(a)-n <= 3 && len(b)-n <= 3
}

// plainWord drops what people mix up without meaning another word.
func plainWord(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
