import { readFileSync } from 'node:fs';

// linux/capability.h
export const CAP_NET_ADMIN = 12;
export const CAP_NET_RAW = 13;
const CAP_SYS_ADMIN = 21;
const CAP_BPF = 39;

/** Whether this process has a capability in effect, in its own user namespace; true when that cannot be told. */
export function hasCapability(capability: number): boolean {
  const effective = maskOf(ownStatus() ?? '', 'CapEff');
  return effective === undefined || has(effective, capability);
}

/** /proc/self/status; `undefined` where it cannot be read. */
export function ownStatus(): string | undefined {
  try {
    return readFileSync('/proc/self/status', 'utf8');
  } catch {
    return undefined;
  }
}

/**
 * Why bpf(2) may have said EPERM, and what to do, from /proc/self/status (proc_pid_status(5)). The kernel, a capability that is
 * missing, and the seccomp filter of a container runtime all say the same.
 */
export function whyBpfRefused(status: string | undefined): string {
  const general = 'This needs CAP_BPF and CAP_NET_ADMIN, and a kernel that is not locked down.';
  const effective = maskOf(status ?? '', 'CapEff');
  if (status === undefined || effective === undefined) return general;
  // CAP_SYS_ADMIN stands for CAP_BPF, as before Linux 5.8.
  const missing = [
    ...(has(effective, CAP_BPF) || has(effective, CAP_SYS_ADMIN) ? [] : ([['CAP_BPF', CAP_BPF]] as const)),
    ...(has(effective, CAP_NET_ADMIN) ? [] : ([['CAP_NET_ADMIN', CAP_NET_ADMIN]] as const)),
  ];
  if (missing.length > 0) {
    const bounding = maskOf(status, 'CapBnd');
    const outOfReach = missing.filter(([, bit]) => bounding !== undefined && !has(bounding, bit)).map(([name]) => name);
    const reach = outOfReach.length === 0 ? '' : ` Not in the bounding set (CapBnd) either: ${outOfReach.join(', ')}.`;
    return `This needs CAP_BPF and CAP_NET_ADMIN, and this process lacks: ${missing.map(([name]) => name).join(', ')}.${reach}`;
  }
  if (/^Seccomp:\s*2$/m.test(status)) {
    return 'This process has CAP_BPF and CAP_NET_ADMIN, and a seccomp filter (Seccomp: 2 in /proc/self/status): the filter refuses bpf(2). Update the container runtime, whose default profile must know CAP_BPF, or give this container alone seccompProfile: {type: Unconfined}.';
  }
  return 'This process has CAP_BPF and CAP_NET_ADMIN, and no seccomp filter: the kernel is locked down (/sys/kernel/security/lockdown), or this is a user namespace.';
}

function maskOf(status: string, field: 'CapEff' | 'CapBnd'): bigint | undefined {
  const digits = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
  return digits === undefined ? undefined : BigInt(`0x${digits}`);
}

function has(mask: bigint, capability: number): boolean {
  return ((mask >> BigInt(capability)) & 1n) === 1n;
}
