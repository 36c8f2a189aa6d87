#!/bin/sh
# peers.sh OUT NAME... : builds programs that are not ours, each from its Go
# module as the go.mod beside the tests pins it: crictl, kubelet, containerd
# (with its shim), runc. What is there and as new as its go.mod stays.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1; shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
export GOFLAGS="-mod=readonly -buildvcs=false -trimpath"

# one FOLDER NAME PACKAGE CGO TAGS LDFLAGS
one() {
	if [ "$out/$2" -nt "$here/$1/go.mod" ]; then return 0; fi
	start=$(date +%s)
	(cd "$here/$1" && CGO_ENABLED=$4 go build -tags "$5" -ldflags "-s -w $6" -o "$out/$2.new" "$3")
	mv "$out/$2.new" "$out/$2"
	echo "built $2 in $(($(date +%s) - start)) s"
}

# version FOLDER MODULE: the version that the folder's go.mod asks for
version() { sed -n "s|.*$2 \(v[0-9][^ ]*\).*|\1|p" "$here/$1/go.mod" | head -n 1; }

for name in "$@"; do
	case $name in
	crictl)
		one e2e/crictl crictl sigs.k8s.io/cri-tools/cmd/crictl 0 "" \
			"-X sigs.k8s.io/cri-tools/pkg/version.Version=$(version e2e/crictl sigs.k8s.io/cri-tools)"
		;;
	kubelet)
		v=$(version e2e/kubelet k8s.io/kubernetes)
		minor=${v#v1.} minor=${minor%%.*}
		stamp=""
		for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			stamp="$stamp -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
		done
		one e2e/kubelet kubelet k8s.io/kubernetes/cmd/kubelet 1 "" "$stamp"
		;;
	containerd)
		m=github.com/containerd/containerd/v2
		one bench/containerd containerd $m/cmd/containerd 1 "no_btrfs no_zfs no_devmapper osusergo netgo" \
			"-X $m/version.Version=$(version bench/containerd $m)"
		one bench/containerd containerd-shim-runc-v2 $m/cmd/containerd-shim-runc-v2 0 "osusergo netgo" ""
		;;
	runc)
		one bench/runc runc github.com/opencontainers/runc 1 "urfave_cli_no_docs seccomp" ""
		;;
	*)
		echo "peers.sh: $name is not known" >&2
		exit 2
		;;
	esac
done
