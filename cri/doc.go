// Package cri is the gRPC edge: RuntimeService and ImageService of
// k8s.io/cri-api, and the admin service, on one unix socket.
//
// It checks, translates, routes, and gives each error its code (codes.go, the
// one table); the domain is in cri/pod and image, which know no gRPC. It keeps
// no state of pods or images, never retries, and answers lists from what the
// domain holds in memory. Calls that Limpet does not offer answer exactly
// Unimplemented, by not being there.
//
// There are no locks besides those of the metrics. What is logged is logged in
// one interceptor; what is returned is not logged a second time.
package cri
