/**
 * Variables that change what Node.js does, or keep it from starting at all. Whoever sets them means programs of his own, not
 * the CNI plugin of his container runtime and not what an agent starts: a runtime that is watched with
 * NODE_OPTIONS=--require=… must still get its pods their network. bin/runtime.sh has the same list (a test compares them).
 */
export const NODE_VARIABLES: readonly string[] = [
  'NODE_OPTIONS',
  'NODE_CHANNEL_FD',
  'NODE_CHANNEL_SERIALIZATION_MODE',
  'NODE_UNIQUE_ID',
  'NODE_EXTRA_CA_CERTS',
  'NODE_TLS_REJECT_UNAUTHORIZED',
  'NODE_ICU_DATA',
  'NODE_PATH',
  'NODE_DEBUG',
  'NODE_DEBUG_NATIVE',
  'NODE_PENDING_DEPRECATION',
  'NODE_PRESERVE_SYMLINKS',
  'NODE_PRESERVE_SYMLINKS_MAIN',
  'NODE_REDIRECT_WARNINGS',
  'NODE_REPL_EXTERNAL_MODULE',
  'NODE_TEST_CONTEXT',
  'NODE_V8_COVERAGE',
];

/** An environment without them. NODE_NAME, which names a Node of Kubernetes, is none of them. */
export function withoutNodeVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !NODE_VARIABLES.includes(name)));
}
