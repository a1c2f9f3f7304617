package queue

import "testing"

func TestNoSuchAddress(t *testing.T) {
	for _, tc := range []struct {
		code, reply string
		want        bool
	}{
		{"5.1.1", "550 5.1.1 no such user", true}, {"5.1.2", "", true}, {"5.1.10", "556 5.1.10 null MX", true},
		{"5.0.0", "550 Unrouteable address", true}, {"5.0.0", "554 spam", false},
		{"5.1.7", "553 5.1.7 bad sender", false}, {"5.1.8", "550 5.1.8 sender's domain does not exist", false},
		{"5.7.1", "550 5.7.1 not you", false}, {"4.1.1", "450 4.1.1 later", false}, {"2.1.5", "250 2.1.5 ok", false},
	} {
		if got := (Status{Code: tc.code, Reply: tc.reply}).NoSuchAddress(); got != tc.want {
			t.Errorf("%s %q: %v", tc.code, tc.reply, got)
		}
	}
}
