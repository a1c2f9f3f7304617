// Package pebblestore keeps the queue in a Pebble database (an LSM tree with
// a write-ahead log) in one folder. It implements [queue.Store] and knows
// neither the network nor why anything is retried.
//
// # What is stored
//
//	f/format                        version of this layout
//	f/index                         fingerprint of what the h/ and t/ keys were made with
//	m/<id>                          envelope and counters of a message, JSON
//	r/<id><n>                       one recipient, JSON
//	b/<id><n>                       one chunk of the body, 64 KiB but for the last
//	a/<id><n>                       one attempt, JSON; the newest 200
//	h/<hop>\0<due><id><first>       a group: recipients of one message and hop with one due time
//	t/<when><id>                    when Sweep must look at a message
//	p/<id>                          a large body is being written; without m/<id>: an orphan
//	x/<key>                         a fact
//
// <id> is the 16 bytes of the ULID; numbers are big-endian, so that the order
// of the keys is the order of time.
//
// # What makes it safe
//
// A message is one synced batch: its chunks that went ahead unsynced are
// earlier in the same log, so what is synced behind them makes them durable.
// Every step of a message is one batch too, DSN included. Leases, parks and
// the windows over the h/ index live in memory only: a crash gives all leases
// back. Due times are stored and kept.
//
// A failed write or sync of the log is fatal: nobody can know which part of
// the log is on the disk, so the process ends (Options.Fatal) and the next
// start reads what is really there. Options.MinFree keeps a full disk from
// ever getting that far: new mail is refused long before.
//
// The engine takes some damage for the end of a log that a power cut has left,
// and goes on without what is behind it; checkFiles looks before it opens.
// Salvage reads tables and logs without the engine.
package pebblestore
