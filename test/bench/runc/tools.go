//go:build tools

// Package tools pins the runc that the bench compares with.
package tools

import (
	_ "github.com/opencontainers/runc"
)
