package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads a duration as Go writes it, with d for days in front:
// 200ms, 1h30m, 5d, 1d12h. A number without a unit is an error, and so is a
// negative duration.
func ParseDuration(s string) (time.Duration, error) {
	if isNumber(s) {
		return 0, fmt.Errorf("%s has no unit (write %s)", quote(s), withUnits(s, "s", "m", "h"))
	}
	bad := fmt.Errorf("%s is not a duration such as 200ms, 30s, 1h30m or 5d", quote(s))
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, bad // a sign, a space or a lone unit
	}
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil {
		return 0, bad
	}
	if n > uint64(math.MaxInt64/day) {
		return 0, fmt.Errorf("%s is too long", quote(s))
	}
	var d time.Duration
	if rest != "" {
		if rest[0] < '0' || rest[0] > '9' {
			return 0, bad
		}
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, bad
		}
	}
	total := time.Duration(n)*day + d
	if total < 0 {
		return 0, fmt.Errorf("%s is too long", quote(s))
	}
	return total, nil
}

// FormatDuration writes d as ParseDuration reads it, without empty parts: 5d,
// 1h30m, 200ms.
func FormatDuration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	if n := d / day; n > 0 {
		fmt.Fprintf(&b, "%dd", n)
		d %= day
	}
	for _, u := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d %= u.size
		}
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}

// units of sizes, the largest first.
var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

var errSizeUnit = errors.New("units are B, KiB, MiB, GiB")

// ParseSize reads a whole number of bytes with its unit: 512B, 64KiB, 50MiB,
// 2GiB. Only binary units are known, so that a limit never depends on which
// meaning of "MB" was guessed.
func ParseSize(s string) (int64, error) {
	if isNumber(s) {
		return 0, fmt.Errorf("%s has no unit (write %s)", quote(s), withUnits(s, "B", "KiB", "MiB"))
	}
	digits := strings.TrimRight(s, "BKMGTikbmgt")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || digits[0] < '0' || digits[0] > '9' {
		return 0, fmt.Errorf("%s is not a size such as 512B, 64KiB, 50MiB or 2GiB", quote(s))
	}
	unit := s[len(digits):]
	for _, u := range units {
		if unit == u.name {
			if n > math.MaxInt64/u.size {
				return 0, fmt.Errorf("%s is too large", quote(s))
			}
			return n * u.size, nil
		}
	}
	if meant := binaryUnit(unit); meant != "" {
		return 0, fmt.Errorf("%s: %w (write %s%s)", quote(s), errSizeUnit, digits, meant)
	}
	return 0, fmt.Errorf("%s: %w", quote(s), errSizeUnit)
}

// binaryUnit finds the unit that MB, mb, M or mib were meant to be.
func binaryUnit(unit string) string {
	if unit == "" {
		return ""
	}
	for _, u := range units {
		if strings.EqualFold(unit[:1], u.name[:1]) {
			return u.name
		}
	}
	return ""
}

// FormatSize writes n bytes in the largest unit that divides it: 50MiB, 1000B.
func FormatSize(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return "0B"
}

// withUnits is the bare number s with each unit that it may have been meant in:
// "120s, 120m or 120h". A long number was meant in the smallest.
func withUnits(s string, units ...string) string {
	if len(s) > 20 {
		return "10" + units[0] // no sense in repeating a monster
	}
	if len(s) > 4 {
		return s + units[0]
	}
	last := len(units) - 1
	var each []string
	for _, u := range units {
		each = append(each, s+u)
	}
	return strings.Join(each[:last], ", ") + " or " + each[last]
}

// isNumber tells whether s is digits, perhaps with a sign or a fraction.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && strings.ContainsAny(s, "0123456789") && !strings.ContainsAny(s, "xXpPeE_")
}
