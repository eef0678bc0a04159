#!/bin/sh
# Runs one suite with node:test; `scripts/setup.sh` has made the machine ready for it.
#
#   scripts/test.sh check                types, lint, dead code
#   scripts/test.sh SUITE [ARGUMENT..]   unit, netns, fast-path, browser, diagnosis, e2e or kind. Arguments go to `node --test`
#                                        (--test-name-pattern=..., --watch), a file name among them replaces the suite's list of files
#
# unit   src, web, test and bench: no root, no network, two files at a time (Node.js alone runs one on two processors)
# netns  test/netns: network namespaces and TUN devices, three files at a time: much of what they do is wait
# fast-path test/fast-path: agents end, come back and are replaced under a thousand packets a second, of which none may be lost: one file
#        at a time, as an agent that waits for a processor for seconds cannot keep that promise
# browser test/browser: the page in Chromium, one file at a time; builds the page first when its sources have changed
# e2e    test/e2e: real servers (etcd, kube-apiserver) and nodes, three files at a time: they mostly wait, but for the Debian guest, which is
#        nice and takes as long as half of the others. Node.js starts files in the order of their names, and that one early.
# diagnosis test/diagnosis: faults injected into hosts with agents, and what weft test, trace and capture say of them
# kind   test/kind: a kind cluster on a Docker of its own, one file at a time
#
# All share the machine with whatever else it does. A file that failed is run once more, alone, and what failed at first stands
# at the end of the output. Not so when more than three failed, which is no chance, and not for files that are named by hand (in
# CI, for them too).
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
cd "$root"
. bin/runtime.sh
weft_runtime "$root"
suite=$1
shift


# Launchers say `#!/usr/bin/env node`, and the machine's own Node.js may be too old for them.
PATH=$(dirname -- "$node"):$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
# Each agent and helper that a test starts compiles the same sources: half of the suite's processor time without it.
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$root/.cache/compile}"

if [ "$suite" = check ]; then
  status=0
  node_modules/.bin/tsc --noEmit || status=1
  node_modules/.bin/tsc --noEmit -p web || status=1
  node_modules/.bin/biome check --error-on-warnings . || status=1
  node_modules/.bin/knip || status=1
  # What only tests use is dead as well.
  node_modules/.bin/knip --production || status=1
  exit $status
fi

# A limit for each file and each test in it: a hang fails the run and says where, instead of holding it up for good.
case $suite in
  unit) options='--test-concurrency=2 --test-timeout=300000' ;;
  netns) options='--test-concurrency=3 --test-timeout=600000' ;;
  fast-path) options='--test-concurrency=1 --test-timeout=600000' ;;
  browser) options='--test-concurrency=1 --test-timeout=300000' ;;
  e2e) options='--test-concurrency=3 --test-timeout=2100000' ;;
  diagnosis) options='--test-concurrency=2 --test-timeout=600000' ;;
  # Nodes that restart, go and join, with one backend after the other.
  kind) options='--test-concurrency=1 --test-timeout=2700000' ;;
  *) echo "scripts/test.sh: unknown suite '$suite'; known: check, unit, netns, fast-path, browser, diagnosis, e2e, kind" >&2 && exit 1 ;;
esac

# What it tests is built.
[ "$suite" != browser ] || make --no-print-directory dist/page/index.html >&2

files() {
  case $suite in
    unit) find src web test bench -name node_modules -prune -o -path test/browser -prune -o -path test/diagnosis -prune -o -path test/fast-path -prune -o -path test/netns -prune -o -path test/e2e -prune -o -path test/kind -prune -o -name '*.test.ts' -print ;;
    *) find "test/$suite" -name node_modules -prune -o -name '*.test.ts' -print ;;
  esac | LC_ALL=C sort
}

for argument; do
  case $argument in *.test.ts) named=yes ;; esac
done
if [ -z "${named:-}" ]; then
  # File names in this repository are kebab-case: no spaces to keep together.
  # shellcheck disable=SC2046
  set -- "$@" $(files)
  if [ "$#" = 0 ]; then
    echo "weft: the suite '$suite' has no test files" >&2
    exit 1
  fi
fi
echo "weft: $suite tests on Node.js $("$node" --version)" >&2

run_tests() {
  # shellcheck disable=SC2086 # a list of options
  "$node" --disable-warning=ExperimentalWarning $options --test "$@"
}
# The suites with a few slow files say when each of them starts and ends.
times=
[ "$suite" = unit ] || times="--test-reporter=$root/scripts/file-times.ts --test-reporter-destination=stdout"
again=yes
[ -z "${named:-}" ] || [ -n "${CI:-}" ] || again=no
if [ "$again" = no ]; then
  run_tests "$@"
  exit
fi

failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
status=0
# shellcheck disable=SC2086 # a list of options
run_tests --test-reporter=spec --test-reporter-destination=stdout $times \
  "--test-reporter=$root/scripts/failed-files.ts" "--test-reporter-destination=$failed" "$@" || status=$?
failed_files=$(grep '^[^ ]' "$failed") || exit $status
if [ "$(echo "$failed_files" | wc -l)" -gt 3 ]; then
  echo "weft: more than three files failed, so none is run again" >&2
  exit $status
fi

# What is left of the arguments is the options.
for argument; do
  shift
  case $argument in *.test.ts) ;; *) set -- "$@" "$argument" ;; esac
done
status=0
for file in $failed_files; do
  printf '\n===== failed, and is run once more, alone: %s\n' "$file"
  if run_tests "$@" "$file"; then
    passed="${passed:-} $file"
  else
    status=1
    twice="${twice:-} $file"
  fi
done
printf '\n===== failed at first, passed alone:%s\n===== failed twice:%s\n===== what failed at first:\n' "${passed:- none}" "${twice:- none}"
cat "$failed"
exit $status
