import { readFileSync } from 'node:fs';

// linux/capability.h
export const CAP_NET_ADMIN = 12;
export const CAP_NET_RAW = 13;

/** Whether this process has a capability in effect, in its own user namespace; true when that cannot be told. */
export function hasCapability(capability: number): boolean {
  let status: string;
  try {
    status = readFileSync('/proc/self/status', 'utf8');
  } catch {
    return true;
  }
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective === undefined || ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n;
}
