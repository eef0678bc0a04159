import { readFileSync } from 'node:fs';

/**
 * Capabilities that Docker 20.10 does not know, and so leaves out of "all" that it gives to a privileged container; newer
 * ones do not.
 */
const UNKNOWN_TO_DOCKER = ['CAP_PERFMON', 'CAP_BPF', 'CAP_CHECKPOINT_RESTORE'];
/** The bit of CAP_SYS_RESOURCE: linux/capability.h. */
const SYS_RESOURCE_BIT = 24n;

/**
 * The text of a program that Docker calls in the place of runc, and that changes what is asked of it in two ways. Where this
 * machine's root lacks CAP_SYS_RESOURCE (it is a container itself, say), nobody can be given it, and runc may not lower a
 * process's OOM score: both are left out, for runc fails of them. And a privileged container gets all capabilities
 * there are, as with any Docker of today.
 */
export function runcWrapper(): string {
  const bounding = /^CapBnd:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const lacksSysResource = ((BigInt(`0x${bounding}`) >> SYS_RESOURCE_BIT) & 1n) === 0n;
  return SCRIPT.replace('@FILTER@', [...(lacksSysResource ? [WITHOUT_SYS_RESOURCE] : []), PRIVILEGED].join(' | '));
}

const WITHOUT_SYS_RESOURCE = `del(.oomScoreAdj) | if .capabilities then .capabilities[] -= ["CAP_SYS_RESOURCE"] else . end`;
/** CAP_SYS_MODULE: among what only a privileged container has. */
const PRIVILEGED = `if (.capabilities.bounding // []) | index("CAP_SYS_MODULE")
  then .capabilities |= with_entries(if .value | index("CAP_SYS_MODULE") then .value += ${JSON.stringify(UNKNOWN_TO_DOCKER)} else . end)
  else . end`;

/** containerd passes the bundle of a new container as \`--bundle DIR\`, and the process of an exec as \`--process FILE\`. */
const SCRIPT = `#!/bin/sh
set -eu
filter='@FILTER@'
before=
for argument; do
  case $before in
    --bundle | -b) file=$argument/config.json at=.process ;;
    --process | -p) file=$argument at=. ;;
  esac
  before=$argument
done
if [ -n "\${file:-}" ]; then
  jq "$at |= ($filter)" "$file" >"$file.changed"
  mv "$file.changed" "$file"
fi
exec runc "$@"
`;
