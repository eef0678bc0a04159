#!/bin/sh
# Runs one TypeScript file of this repository with the pinned Node.js: scripts/run.sh bench/main.ts [ARGUMENT...]
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
. "$root/bin/runtime.sh"
weft_runtime "$root"
file=$root/$1
shift
exec "$node" --disable-warning=ExperimentalWarning "$file" "$@"
