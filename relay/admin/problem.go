package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"srvrelay/queue"
)

// problem is an error as it goes over the wire (RFC 9457).
type problem struct {
	Type   string `json:"type"`   // problemType + a word that programs go by
	Title  string `json:"title"`  // the same for all of a type
	Status int    `json:"status"` // the HTTP status
	Detail string `json:"detail"` // what it is this time, for a person
}

const (
	problemType = "urn:srvrelay:problem:"
	problemJSON = "application/problem+json"
)

// kind is a type of problem. A word never changes its meaning.
type kind struct {
	word   string
	status int
	title  string
}

var (
	badRequest  = kind{"bad-request", http.StatusBadRequest, "The request makes no sense"}
	noToken     = kind{"unauthorized", http.StatusUnauthorized, "A token is needed"}
	wrongOrigin = kind{"wrong-origin", http.StatusForbidden, "Another web site asks"}
	notRemote   = kind{"not-remote", http.StatusForbidden, "Only on the machine itself"}
	noMessage   = kind{"no-such-message", http.StatusNotFound, "There is no such message"}
	noRoute     = kind{"no-such-route", http.StatusNotFound, "The relay does not know this request"}
	wrongMethod = kind{"wrong-method", http.StatusMethodNotAllowed, "The method does not fit"}
	exists      = kind{"exists", http.StatusConflict, "It is there already"}
	tooLarge    = kind{"too-large", http.StatusRequestEntityTooLarge, "The request is too large"}
	wrongHost   = kind{"wrong-host", http.StatusMisdirectedRequest, "The relay has another name"}
	tooOften    = kind{"too-often", http.StatusTooManyRequests, "Too many requests"}
	broken      = kind{"internal", http.StatusInternalServerError, "The relay could not do it"}
	notReady    = kind{"not-ready", http.StatusServiceUnavailable, "No new mail is taken"}
)

func (k kind) send(w http.ResponseWriter, detail string) {
	w.Header().Set("Content-Type", problemJSON)
	w.WriteHeader(k.status)
	_ = json.NewEncoder(w).Encode(problem{problemType + k.word, k.title, k.status, queue.Safe(detail, 1000)})
}

// kindOf says whose fault an error is.
func kindOf(err error) kind {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge
	case errors.Is(err, queue.ErrNotFound):
		return noMessage
	case errors.Is(err, errRequest):
		return badRequest
	case errors.Is(err, queue.ErrExists):
		return exists
	}
	return broken
}

// answer writes a result, or an error.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		kindOf(err).send(w, strings.TrimPrefix(err.Error(), "queue: "))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}
