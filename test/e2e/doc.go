// Package e2e drives the built binaries with what people drive them with:
// crictl, and a stock kubelet in standalone mode with static pods. Both are
// built from their Go modules (test/peers.sh).
//
// Its tests stand behind the build tag e2e, since they need root and minutes:
// make e2e. They keep to scratch folders, a cgroup of their own and addresses
// that stay in the machine, and leave nothing behind. LIMPET_SLOW=N lets them
// wait N times as long, for a machine that is emulated.
package e2e
