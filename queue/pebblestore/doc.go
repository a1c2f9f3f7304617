// Package pebblestore keeps the queue in a Pebble database (an LSM tree with
// a write-ahead log) in one folder. It implements [queue.Store] and knows
// neither the network nor why anything is retried.
//
// # What is stored
//
//	f/format                        version of this layout
//	f/index                         fingerprint of what the h/ and t/ keys were made with
//	m/<id>                          envelope and counters of a message, JSON,
//	                                with the first bytes of a large body that its doors have put before it
//	r/<id><n>                       one recipient, JSON
//	b/<id><n>                       the body, in one chunk of less than 64 KiB; of a report in several
//	l/<number>                      the message whose large body is the file bodies/<number>
//	a/<id><n>                       one attempt, JSON; the newest 200
//	h/<hop>\0<lane><due><id><first> a group: recipients of one message and hop with one due time
//	t/<when><id>                    when Sweep must look at a message; each has one, of which its size is the value
//	x/<key>                         a fact
//	e/<hour><id>                    a message that is gone, see pack.go
//	n/<hour><id>                    the names of a message, as hashes
//	n/<hour><id><name>              one that it has got later: the next hop's id; no value
//	p/<hour><fingerprint>           a plan that attempts followed, in words
//
// <id> is the 16 bytes of the ULID; numbers are big-endian, so that the order
// of the keys is the order of time.
//
// # What makes it safe
//
// A message is one synced batch. A body of 64 KiB or more is a file in the
// folder bodies, which is synced before that batch; m/ has its number and its
// checksum, l/ tells the next open whose it is. A file without its l/ key is
// what a crash has cut off, or of a message that is done: it is deleted. The
// file of a message that is done is written over by a later body, once its
// removal is synced and nobody reads it.
//
// Every step of a message is one batch too, DSN included. Failures and reports
// are synced before anybody acts on them; successes and deferrals follow with
// the next sync, 10 ms later at most: a crash in between sends once more, and
// loses nothing. Leases, parks and
// the windows over the h/ index live in memory only: a crash gives all leases
// back. Due times are stored and kept.
//
// A failed write or sync of the log is fatal: nobody can know which part of
// the log is on the disk, so the process ends (Options.Fatal) and the next
// start reads what is really there. The write or sync of a body's file that
// fails costs that message only: no batch names it yet. Options.MinFree keeps a full disk from
// ever getting that far: new mail is refused long before.
//
// The engine takes some damage for the end of a log that a power cut has left,
// and goes on without what is behind it; checkFiles looks before it opens.
// Salvage reads tables and logs without the engine.
package pebblestore
