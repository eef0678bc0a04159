import type { IpFamily } from './address.ts';
import type { Ipv4Addr } from './ipv4.ts';
import type { Ipv6Addr } from './ipv6.ts';

/** How a family is called in fields: `config.ipv4`, `addresses.ipv6`. */
export type FamilyKey = 'ipv4' | 'ipv6';

/** One value for each family, so that a rule is written once for both. `T6` is for values whose type the family decides. */
export interface PerFamily<T, T6 = T> {
  readonly ipv4: T;
  readonly ipv6: T6;
}

/** An address of each family that has one. */
export type Addresses = PerFamily<Ipv4Addr | undefined, Ipv6Addr | undefined>;

/** What a rule for both families needs to know of each. */
export interface Family {
  readonly key: FamilyKey;
  readonly version: IpFamily;
  /** For messages. */
  readonly name: 'IPv4' | 'IPv6';
  /** Length of an address, and so of the prefix of a single one. */
  readonly bits: 32 | 128;
}

export const FAMILIES: readonly Family[] = [
  { key: 'ipv4', version: 4, name: 'IPv4', bits: 32 },
  { key: 'ipv6', version: 6, name: 'IPv6', bits: 128 },
];

/** Those of which there is something, IPv4 first. */
export function familiesIn(values: PerFamily<unknown>): readonly Family[] {
  return FAMILIES.filter(({ key }) => values[key] !== undefined);
}

/** The same made for each family. */
export function perFamily<T>(make: (key: FamilyKey) => T): PerFamily<T> {
  return { ipv4: make('ipv4'), ipv6: make('ipv6') };
}

/** What is there, IPv4 first. */
export function present<T, T6 = T>({ ipv4, ipv6 }: PerFamily<T | undefined, T6 | undefined>): (T | T6)[] {
  const values: (T | T6)[] = [];
  if (ipv4 !== undefined) values.push(ipv4);
  if (ipv6 !== undefined) values.push(ipv6);
  return values;
}
