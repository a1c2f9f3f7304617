package relay

import (
	"fmt"
	"slices"
	"time"
)

const bansFormat = 1

// bansFile is the list on the disk.
type bansFile struct {
	Format int                `json:"format"`
	Bans   []Ban              `json:"bans"`
	Guards []Guard            `json:"guards"`
	Places map[string][]place `json:"places"` // by name
}

// Save writes the list to a file, whole or not at all, if it has changed.
func (b *Bans) Save(path string, now time.Time) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	file, changed := b.toSave(now)
	if !changed {
		return nil
	}
	if err := writeKept(path, file); err != nil {
		b.mu.Lock()
		b.changed = true
		b.mu.Unlock()
		return fmt.Errorf("bans could not be written: %w", err)
	}
	return nil
}

func (b *Bans) toSave(now time.Time) (file bansFile, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changed {
		return file, false
	}
	b.prune(now)
	file = bansFile{Format: bansFormat, Places: make(map[string][]place, len(b.places))}
	for _, ban := range b.nets {
		file.Bans = append(file.Bans, *ban)
	}
	for name, until := range b.guards {
		file.Guards = append(file.Guards, Guard{name, until})
	}
	for name, all := range b.places {
		file.Places[name] = slices.Clone(all)
	}
	b.changed = false
	return file, true
}

// LoadBans reads what Save has written. The list is usable in any case; an
// error says that it begins anew, and why. A file that is not there is none.
func LoadBans(path string, now time.Time) (*Bans, error) {
	b := NewBans()
	var file bansFile
	if err := readKept(path, bansFormat, &file); err != nil {
		return b, fmt.Errorf("%s cannot be used, so nobody is banned: %w", path, err)
	}
	for _, ban := range file.Bans {
		if p := ban.Network; p.IsValid() && p == p.Masked() && !ban.forgotten(now) {
			b.put(ban, now)
		}
	}
	for _, g := range file.Guards {
		if len(b.guards) < maxBans {
			b.guards[g.Name] = g.Until
		}
	}
	for name, all := range file.Places {
		if n := len(all); n > 0 && len(b.places) < maxBans {
			b.places[name] = all[max(0, n-maxPlaces):]
		}
	}
	b.prune(now)
	b.changed = false
	return b, nil
}
