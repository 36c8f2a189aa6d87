package pod

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/limpet-cri/limpet/shim/spec"
)

// annotationDomain is where our settings live, on the pod.
const annotationDomain = "limpet.dev/"

// The settings. The first takes the container's name after a dot; the second
// may, and then wins over the one for the whole pod.
const (
	annotationListen = annotationDomain + "listen" // listen.CONTAINER: ports or addresses, separated by commas
	annotationOnStop = annotationDomain + "on-stop"
)

// onStops are the values of on-stop.
func onStop(v string) (spec.OnStop, bool) {
	switch v {
	case "wait":
		return spec.OnStopWait, true
	case "close-stdin":
		return spec.OnStopCloseStdin, true
	case "kill":
		return spec.OnStopKill, true
	}
	return spec.OnStopDefault, false
}

// checkAnnotations refuses what is under our domain and no setting, or a
// setting with a bad value, so that a typing error is not a silent default.
func checkAnnotations(a map[string]string, p Profile, hostNet bool) error {
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if !strings.HasPrefix(k, annotationDomain) {
			continue
		}
		name, container, _ := strings.Cut(strings.TrimPrefix(k, annotationDomain), ".")
		switch annotationDomain + name {
		case annotationListen:
			if container == "" {
				return &FieldError{Field: "annotation " + k, Sentence: "say whose sockets they are: " + annotationListen + ".CONTAINER"}
			}
			if _, err := listens(a[k]); err != nil {
				return &FieldError{Field: "annotation " + k, Sentence: err.Error()}
			}
			if hostNet && !p.AllowHostListen {
				return &FieldError{Field: "annotation " + k, Sentence: "the pod has the node's network, and the handler's profile does not allow to listen there (allow_host_listen)"}
			}
		case annotationOnStop:
			if _, ok := onStop(a[k]); !ok {
				return &FieldError{Field: "annotation " + k, Sentence: "the value " + strconv.Quote(a[k]) + " is unknown; known are wait, close-stdin and kill"}
			}
		default:
			return &FieldError{Field: "annotation " + k, Sentence: "it is unknown; known are " + annotationListen + ".CONTAINER, " + annotationOnStop + " and " + annotationOnStop + ".CONTAINER"}
		}
	}
	return nil
}

// listens reads the value of a listen annotation: "8080" or "127.0.0.1:8080"
// or "[::1]:8080", several separated by commas.
func listens(v string) ([]spec.Listen, error) {
	var l []spec.Listen
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		port, addr := part, ""
		if i := strings.LastIndexByte(part, ':'); i >= 0 {
			addr, port = part[:i], part[i+1:]
		}
		if addr != "" {
			ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
			if err != nil || ip.Is6() != strings.HasPrefix(addr, "[") || ip.Zone() != "" {
				return nil, invalid("%q has no literal IP address before the port", part)
			}
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, invalid("%q is no port; want 1 to 65535, or ADDRESS:PORT, separated by commas", part)
		}
		l = append(l, spec.Listen{Address: addr + ":" + strconv.FormatUint(n, 10)})
	}
	if len(l) > maxListen {
		return nil, invalid("%d sockets; at most %d", len(l), maxListen)
	}
	return l, nil
}

// settings are the annotations of a pod as they concern one container.
func settings(a map[string]string, container string) ([]spec.Listen, spec.OnStop, error) {
	var l []spec.Listen
	if v, ok := a[annotationListen+"."+container]; ok {
		var err error
		if l, err = listens(v); err != nil {
			return nil, 0, err
		}
	}
	v, ok := a[annotationOnStop+"."+container]
	if !ok {
		v = a[annotationOnStop]
	}
	stop, _ := onStop(v)
	return l, stop, nil
}
