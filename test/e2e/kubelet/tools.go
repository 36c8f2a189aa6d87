//go:build tools

// Package tools pins the kubelet that the end-to-end tests use.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kubelet"
)
