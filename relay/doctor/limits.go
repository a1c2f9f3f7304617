package doctor

import (
	"context"
	"fmt"
)

// Files that the relay has open beside its connections.
const (
	storeFiles = 250 // the store, its log, the admin socket, the program itself
	perAttempt = 3   // a delivery under way: its connection, and two look-ups (A and AAAA)
)

// checkLimits looks whether as many files may be open as the configuration may
// need at its busiest.
func checkLimits(_ context.Context, e *Env) []Finding {
	c := e.Config
	need := uint64(c.Limits.MaxConnections + 3*perAttempt*c.Delivery.Concurrency + storeFiles)
	have, err := e.Machine.FileLimit(e.PID)
	if err != nil {
		return []Finding{skipped("how many files the relay may have open: %v", err)}
	}
	whose := "the running relay"
	if e.PID == 0 {
		whose = "a program started from here" // a service has a limit of its own
	}
	if have >= need {
		return []Finding{ok("%s may have %d files open, and needs at most %d", whose, have, need)}
	}
	return []Finding{{
		Level: Warning,
		What:  fmt.Sprintf("%s may have %d files open, and may need %d", whose, have, need),
		Why:   fmt.Sprintf("limits.max_connections (%d) and delivery.concurrency (%d) cannot be reached; beyond the limit connections and look-ups fail.", c.Limits.MaxConnections, c.Delivery.Concurrency),
		Fix:   fmt.Sprintf("LimitNOFILE=%d   # in the [Service] section of its unit; in a shell: ulimit -n %d", max(need, 65536), need),
	}}
}
