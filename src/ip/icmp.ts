import type { IpFamily } from './address.ts';

export interface IcmpNumbers {
  /** In the IP header. */
  readonly protocol: number;
  readonly request: number;
  readonly reply: number;
}

/** RFC 792, RFC 4443. */
export const ICMP: Readonly<Record<IpFamily, IcmpNumbers>> = {
  4: { protocol: 1, request: 8, reply: 0 },
  6: { protocol: 58, request: 128, reply: 129 },
};

/** `prohibited`: a firewall on the way says so. */
export type IcmpReason = 'too-big' | 'port' | 'host' | 'net' | 'prohibited' | 'hop-limit' | 'other';

interface ErrorTypes {
  /** Types that have one reason whatever their code. */
  readonly types: Readonly<Record<number, IcmpReason>>;
  readonly unreachable: number;
  /** Reasons by the code of `unreachable`. */
  readonly codes: Readonly<Record<number, IcmpReason>>;
}

const ERRORS: Readonly<Record<IpFamily, ErrorTypes>> = {
  // RFC 792, RFC 1812 section 5.2.7.
  4: {
    types: { 11: 'hop-limit' },
    unreachable: 3,
    codes: { 0: 'net', 1: 'host', 3: 'port', 4: 'too-big', 9: 'prohibited', 10: 'prohibited', 13: 'prohibited' },
  },
  // RFC 4443.
  6: {
    types: { 2: 'too-big', 3: 'hop-limit' },
    unreachable: 1,
    codes: { 0: 'net', 1: 'prohibited', 3: 'host', 4: 'port', 5: 'prohibited' },
  },
};

/** `undefined` for what is no error about a packet that is quoted. */
export function icmpReasonOf(family: IpFamily, type: number, code: number): IcmpReason | undefined {
  const { types, unreachable, codes } = ERRORS[family];
  return type === unreachable ? (codes[code] ?? 'other') : types[type];
}
