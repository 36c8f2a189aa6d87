//go:build tools

// Package tools pins what make lint runs, apart from Limpet's own
// requirements.
package tools

import _ "honnef.co/go/tools/cmd/staticcheck"
