import { assertNever } from '../assert-never.ts';
import { describeError } from '../errors.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import { formatIpv6, type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import { formatPrefix4, formatPrefix6 } from '../ip/prefix.ts';
import type { Lease, LeaseAttrs, LeaseKey } from '../lease/lease.ts';
import type { Subnets } from '../lease/subnets.ts';

/** What a subnet manager did or met that an operator greps for and a metric counts. It is never needed for correctness. */
export type SubnetReport =
  | { readonly type: 'lease-reused'; readonly lease: Lease }
  | { readonly type: 'lease-incompatible'; readonly lease: Lease }
  | { readonly type: 'previous-reused'; readonly subnets: Subnets }
  | { readonly type: 'previous-incompatible'; readonly subnets: Subnets }
  | { readonly type: 'previous-taken'; readonly subnets: Subnets; readonly by: LeaseAttrs | undefined }
  | { readonly type: 'picking'; readonly from: Ipv4Addr | Ipv6Addr; readonly to: Ipv4Addr | Ipv6Addr }
  /** No subnet is left that nobody claims; this one lies in an entry that claims several. */
  | {
      readonly type: 'picked-under';
      readonly subnets: Subnets;
      readonly entry: Subnets;
      readonly by: LeaseAttrs | undefined;
    }
  | { readonly type: 'lease-allocated'; readonly lease: Lease }
  | { readonly type: 'create-race-lost'; readonly key: LeaseKey }
  | { readonly type: 'renewal-scheduled'; readonly delayMs: number }
  | { readonly type: 'lease-renewed'; readonly lease: Lease }
  | { readonly type: 'lease-retaken'; readonly lease: Lease }
  | { readonly type: 'entry-unreadable'; readonly key: string; readonly reason: string }
  | { readonly type: 'resynchronised'; readonly leases: number; readonly reason: string }
  | {
      readonly type: 'store-failed';
      readonly failure: string;
      readonly error: Error;
      readonly retryInMs: number;
      /** The same was told less than a second ago. */
      readonly repeated?: boolean;
    }
  | { readonly type: 'store-answered' }
  | { readonly type: 'insecure'; readonly reason: string }
  /** A line that belongs to one store alone. */
  | { readonly type: 'note'; readonly severity: ReportSeverity; readonly text: string };

export type ReportSink = (report: SubnetReport) => void;

export type ReportSeverity = 'debug' | 'info' | 'warning' | 'error';

/** Go's text of a duration, to the second, or to the millisecond below one: `22h59m59s`, `84ms`. */
function formatDuration(ms: number): string {
  if (ms > 0 && Math.round(ms) < 1000) return `${Math.max(1, Math.round(ms))}ms`;
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return `${h > 0 ? `${h}h` : ''}${h > 0 || m > 0 ? `${m}m` : ''}${s}s`;
}

function formatEither(addr: Ipv4Addr | Ipv6Addr): string {
  return typeof addr === 'bigint' ? formatIpv6(ipv6Of(addr)) : formatIpv4(ipv4Of(addr));
}

const SHOWN_LENGTH = 100;

/** Text that somebody else wrote, for a message: quoted, on one line, and not longer than a line. */
export function shown(text: string): string {
  return text.length <= SHOWN_LENGTH ? JSON.stringify(text) : `${JSON.stringify(text.slice(0, SHOWN_LENGTH))}…`;
}

/** flannel's way of naming both subnets of a lease; an absent one is the zero network, as its operators know it. */
function formatPair({ ipv4, ipv6 }: Subnets): string {
  return `ip: ${ipv4 === undefined ? '0.0.0.0/0' : formatPrefix4(ipv4)} ipv6: ${ipv6 === undefined ? '::/0' : formatPrefix6(ipv6)}`;
}

/** `10.244.38.0/24 and fd00::/64`; empty when there is none. */
export function formatSubnets(subnets: Subnets): string {
  return present(subnets).map(formatPrefix).join(' and ');
}

/** The host that attributes speak of, by its public address. */
export function formatOwner(attrs: LeaseAttrs | undefined): string {
  const [address] = attrs === undefined ? [] : present(attrs.publicAddresses);
  return address === undefined ? 'an unknown host' : formatAddr(address);
}

/** The log line of a report: flannel's own words where flannel has a line for it, so that searches go on finding it. */
export function describeReport(report: SubnetReport): { readonly severity: ReportSeverity; readonly text: string } {
  switch (report.type) {
    case 'lease-reused':
      return {
        severity: 'info',
        text: `Found lease (${formatPair(report.lease.subnets)}) for current IP (${formatOwner(report.lease.attrs)}), reusing`,
      };
    case 'lease-incompatible':
      return {
        severity: 'info',
        text: `Found lease (${formatPair(report.lease.subnets)}) for current IP (${formatOwner(report.lease.attrs)}) but not compatible with current config, ${report.lease.expiresAtMs === undefined ? 'leaving the reservation alone' : 'deleting'}`,
      };
    case 'previous-reused':
      return { severity: 'info', text: `Found previously leased subnet (${formatSubnets(report.subnets)}), reusing` };
    case 'previous-incompatible':
      return {
        severity: 'error',
        text: `Found previously leased subnet (${formatSubnets(report.subnets)}) that is not compatible with the network configuration, ignoring`,
      };
    case 'previous-taken':
      return {
        severity: 'warning',
        text: `Previously leased subnet (${formatSubnets(report.subnets)}) is held by ${formatOwner(report.by)} now; taking another one`,
      };
    case 'picking':
      return {
        severity: 'info',
        text: `Picking subnet in range ${formatEither(report.from)} ... ${formatEither(report.to)}`,
      };
    case 'picked-under':
      return {
        severity: 'warning',
        text: `Taking ${formatSubnets(report.subnets)}, although ${formatOwner(report.by)} claims it with ${formatSubnets(report.entry)}: that is more than one subnet, and no other is free. Delete that entry if no host has it`,
      };
    case 'lease-allocated':
      return {
        severity: 'info',
        text: `Allocated lease (${formatPair(report.lease.subnets)}) to current node (${formatOwner(report.lease.attrs)})`,
      };
    case 'create-race-lost':
      return { severity: 'info', text: `Another host took ${report.key} first; trying another subnet` };
    case 'renewal-scheduled':
      return { severity: 'info', text: `Waiting for ${formatDuration(report.delayMs)} to renew lease` };
    case 'lease-renewed':
      return {
        severity: 'info',
        text: `Lease renewed, new expiration: ${report.lease.expiresAtMs === undefined ? 'never' : new Date(report.lease.expiresAtMs).toISOString()}`,
      };
    case 'lease-retaken':
      return {
        severity: 'warning',
        text: `Own lease (${formatPair(report.lease.subnets)}) was gone from the store and has been taken again`,
      };
    case 'entry-unreadable':
      return { severity: 'warning', text: `Skipping unreadable lease entry ${report.key}: ${report.reason}` };
    case 'resynchronised':
      return { severity: 'info', text: `Read all ${report.leases} leases again: ${report.reason}` };
    case 'store-failed':
      return {
        severity: report.repeated === true ? 'debug' : 'error',
        text: `${report.failure} (trying again in ${formatDuration(report.retryInMs)}): ${describeError(report.error)}`,
      };
    case 'store-answered':
      return { severity: 'info', text: 'The lease store answers again' };
    case 'insecure':
      return { severity: 'warning', text: report.reason };
    case 'note':
      return { severity: report.severity, text: report.text };
    default:
      return assertNever(report, 'subnet report');
  }
}
