/** What somebody who asks for a backend of flannel's that weft does not have is told. */
export interface NotOffered {
  readonly message: string;
  readonly hint: string;
}

const NOT_OFFERED: ReadonlyMap<string, NotOffered> = new Map([
  [
    'ipsec',
    {
      message: 'the backend ipsec needs strongSwan’s daemon charon on every host, which weft does not support',
      hint: 'Use wireguard, which also encrypts and needs no daemon, or keep flannel on every host and install strongSwan (Debian: apt-get install strongswan-charon).',
    },
  ],
]);

/** For a (lower-cased) name of Backend.Type. */
export function notOffered(type: string): NotOffered | undefined {
  return NOT_OFFERED.get(type);
}
