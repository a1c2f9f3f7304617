package admin

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// apiVersion is in front of every path. Within a version routes and fields are
// only ever added; what a client must not misunderstand is a new version.
const apiVersion = "v1"

// routes are the paths of the API. Without the version in front, so that there
// is one place that has it.
type routes struct {
	mux      *http.ServeMux
	patterns []string // "GET /v1/hops", for the test against the OpenAPI document
}

// HandleFunc adds a route such as "GET /hops".
func (r *routes) HandleFunc(pattern string, h http.HandlerFunc) {
	method, path, _ := strings.Cut(pattern, " ")
	r.add(method, "/"+apiVersion+path, h)
}

func (r *routes) add(method, path string, h http.HandlerFunc) {
	r.mux.HandleFunc(method+" "+path, h)
	r.patterns = append(r.patterns, method+" "+path)
}

// ServeHTTP answers what has a route. It never redirects: a path that is not
// written as its route is none, so that nobody in front of the relay can see
// another path in it than the relay does. What may have a slash in it is for
// the query.
func (r *routes) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.Contains(strings.ToLower(req.URL.RawPath), "%2f") || path.Clean("/"+req.URL.Path) != req.URL.Path {
		noRoute.send(w, "the path has dots, empty parts or escaped slashes: write it as docs/admin-api.md does")
		return
	}
	if _, pattern := r.mux.Handler(req); pattern != "" {
		r.mux.ServeHTTP(w, req)
		return
	}
	if allowed := r.methods(req); len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		wrongMethod.send(w, fmt.Sprintf("%.20q is not possible here, but %s", req.Method, strings.Join(allowed, ", ")))
		return
	}
	unknown(w, req)
}

// methods are those that a path has.
func (r *routes) methods(req *http.Request) (allowed []string) {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: req.URL, Host: req.Host}
		if _, pattern := r.mux.Handler(probe); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	slices.Sort(allowed)
	return allowed
}

// versions is what is said to a client of another version.
const versions = "the command and the running relay are of different versions: use the srvrelay that the relay was started from, " +
	"or restart the relay if it has been upgraded"

// unknown tells a client what is wrong. Clients from before there were versions
// print an answer as it is, and name no type that they want.
func unknown(w http.ResponseWriter, req *http.Request) {
	if !strings.HasPrefix(req.URL.Path, "/"+apiVersion+"/") && req.Header.Get("Accept") == "" {
		http.Error(w, "this relay speaks version "+apiVersion+" of its API: "+versions, http.StatusGone)
		return
	}
	noRoute.send(w, fmt.Sprintf("%.100q; this relay speaks %s. Perhaps %s", req.URL.Path, apiVersion, versions))
}
