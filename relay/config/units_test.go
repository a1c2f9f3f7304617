package config

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"200ms": 200 * time.Millisecond, "5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"0s": 0, "0d": 0, "1.5h": 90 * time.Minute, "106751d": 106751 * day,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "30", "1.5", "-5", "-5s", "+5s", " 5s", "5 s", "d", "5d-1h", "5d 1h", "1h5d", "5dd", "1.5d", "5D", "1e3",
		"106752d", "106751d24h", "99999999999999999999d", "9223372036854775808ns", "∞",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "200ms": 200 * time.Millisecond, "5d": 120 * time.Hour, "1d12h": 36 * time.Hour,
		"1h30m": 90 * time.Minute, "1h": time.Hour, "2d1.5s": 2*day + 1500*time.Millisecond,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "duration"))
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d is %s, and read as %d, %v", d, FormatDuration(d), got, err)
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "size") &^ (1<<rapid.IntRange(0, 40).Draw(t, "zeros") - 1)
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is %s, and read as %d, %v", n, FormatSize(n), got, err)
		}
	})
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0B": 0, "512B": 512, "64KiB": 64 << 10, "50MiB": 50 << 20, "2GiB": 2 << 30} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":       `"" is not a size such as 512B, 64KiB, 50MiB or 2GiB`,
		"MiB":    `"MiB" is not a size such as 512B, 64KiB, 50MiB or 2GiB`,
		"-1MiB":  `"-1MiB" is not a size such as 512B, 64KiB, 50MiB or 2GiB`,
		"1.5MiB": `"1.5MiB" is not a size such as 512B, 64KiB, 50MiB or 2GiB`,
		"50":     `"50" has no unit (write 50B, 50KiB or 50MiB)`,
		"50M":    `"50M": units are B, KiB, MiB, GiB (write 50MiB)`,
		"50mib":  `"50mib": units are B, KiB, MiB, GiB (write 50MiB)`,
		"50k":    `"50k": units are B, KiB, MiB, GiB (write 50KiB)`,
		"1TiB":   `"1TiB": units are B, KiB, MiB, GiB`,

		"9007199254740993KiB": `"9007199254740993KiB" is too large`,
	} {
		if got, err := ParseSize(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %d, %v; want %s", text, got, err, want)
		}
	}
}

func FuzzUnits(f *testing.F) {
	for _, s := range []string{"5d", "1h30m", "50MiB", "50", "5dd", "µ", "-1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil {
			if again, err := ParseDuration(FormatDuration(d)); d < 0 || err != nil || again != d {
				t.Errorf("%q is %d, then %d, %v", s, d, again, err)
			}
		}
		if n, err := ParseSize(s); err == nil {
			if again, err := ParseSize(FormatSize(n)); n < 0 || err != nil || again != n {
				t.Errorf("%q is %d, then %d, %v", s, n, again, err)
			}
		}
	})
}
