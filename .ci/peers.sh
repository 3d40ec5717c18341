#!/bin/sh
# Builds the real programs that interop tests talk to, pinned, outside the repository.
# Usage: .ci/peers.sh kubo     (idempotent; prints the version; needs Go)
set -eu

peers="${XDG_CACHE_HOME:-$HOME/.cache}/farcast-peers"

KUBO=0.42.0

kubo() {
    folder="$peers/kubo-$KUBO"
    if [ ! -x "$folder/ipfs" ]; then
        mkdir -p "$folder"
        # "go install module@version" asks for the list of versions; a module of our own need not.
        printf 'module peers\n\ngo 1.26.0\n\nrequire github.com/ipfs/kubo v%s\n' "$KUBO" >"$folder/go.mod"
        (
            cd "$folder"
            GOFLAGS="-mod=mod -buildvcs=false" go build -o ipfs.part github.com/ipfs/kubo/cmd/ipfs
            mv ipfs.part ipfs
        ) >&2
    fi
    ln -sfn "kubo-$KUBO/ipfs" "$peers/ipfs"
    "$peers/ipfs" --version
}

[ $# -gt 0 ] || { echo "usage: $0 kubo..." >&2; exit 2; }
for peer in "$@"; do
    case "$peer" in
    kubo) kubo ;;
    *) echo "peers.sh: unknown peer $peer; known: kubo" >&2; exit 2 ;;
    esac
done
