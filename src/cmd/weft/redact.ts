const HIDDEN = '[redacted]';

/**
 * What looks like a secret, wherever it stands: text of many programs is searched, none of which knows of this. Each replaces the
 * whole match but for what `$1` keeps.
 */
const PATTERNS: readonly RegExp[] = [
  /()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g,
  // A key of WireGuard; public ones go as well, for nothing tells them apart.
  /()(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=/g,
  /(\b(?:authorization|weft-api-token)["']?\s*[:=]\s*["']?(?:bearer |basic )?)[^\s"',]+/gi,
  /(\bbearer )[\w.~+/=-]{8,}/gi,
  /([a-z][a-z0-9+.-]*:\/\/)[^\s/@:"']*:[^\s/@"']*@/gi,
  // A JSON Web Token.
  /()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+/g,
  /(["']?\b[\w-]*(?:password|passwd|secret|token|psk|private-?key|preshared-?key|access-?key(?:-?id)?)["']?\s*[:=]\s*["']?)(?!["'{[]|\[redacted\]|\[secret\]|<redacted>)[^\s"',}]+/gi,
];

/** The text without what looks like a secret. */
export function redact(text: string): string {
  return PATTERNS.reduce((shown, pattern) => shown.replace(pattern, `$1${HIDDEN}`), text);
}
