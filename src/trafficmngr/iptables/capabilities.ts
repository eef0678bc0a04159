export interface IptablesCapabilities {
  /** `--random-fully` for MASQUERADE, and `--wait` for iptables-restore: both came with 1.6.2. */
  readonly since162: boolean;
  /** Its rules are in nf_tables. */
  readonly isNft: boolean;
}

/**
 * What this iptables can, from the output of `iptables --version`, such as `iptables v1.8.9 (nf_tables)`. Text that is
 * not understood counts as new: every version of the last years is.
 */
export function iptablesCapabilities(versionText: string): IptablesCapabilities {
  const match = /v(\d+)\.(\d+)(?:\.(\d+))?/.exec(versionText);
  const isNft = versionText.includes('(nf_tables)');
  if (match === null) return { since162: true, isNft };
  const [major = 0, minor = 0, patch = 0] = match.slice(1).map((part) => Number(part ?? 0));
  return { since162: major > 1 || (major === 1 && (minor > 6 || (minor === 6 && patch >= 2))), isNft };
}
