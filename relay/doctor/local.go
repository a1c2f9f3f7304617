package doctor

import "context"

// Local makes the checks that ask neither the network nor the disk's patience,
// and returns what is not in order, the worst first: for a look at a relay that
// runs, as often as somebody likes.
func Local(ctx context.Context, e *Env) []Finding {
	var found []Finding
	for _, c := range []check{
		{"disk", checkSpace}, {"certificate", checkCertificate}, {"secrets", checkSecrets},
	} {
		for _, f := range c.run(ctx, e) {
			if f.Level == Warning || f.Level == Error {
				f.Check = c.name
				found = append(found, f)
			}
		}
	}
	return sorted(found)
}

// checkSpace is checkDisk without the writes that measure.
func checkSpace(_ context.Context, e *Env) []Finding {
	d, err := e.Machine.Disk(e.Config.DataDir)
	if err != nil {
		return nil
	}
	return space(d, e.Config.DataDir, e.Config.Limits.MinFree)
}
