/**
 * What there is to say of the clock of a host that refuses its store's certificate for the time on it, in the words of OpenSSL
 * (X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED); `undefined` of any other failure.
 * @param atMs by the clock in doubt, in milliseconds since the epoch.
 */
export function clockDoubt(
  failure: string | undefined,
  atMs: number,
): { readonly cause: string; readonly remedy: string } | undefined {
  const [, what] = /\bcertificate (is not yet valid|has expired)\b/.exec(failure ?? '') ?? [];
  if (what === undefined) return undefined;
  return {
    cause: `this host’s clock says ${new Date(atMs).toISOString()}, and the certificate of the store ${what}`,
    remedy: 'Set the clock (timedatectl, chronyc); if it is right, renew the certificate of the store.',
  };
}
