/** DNS of a Kubernetes cluster: where it is, by what is on file on a node, and its messages (RFC 1035). Pure, total. */
import { type IpAddr, parseAddr } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6At } from '../ip/ipv6.ts';

export interface ClusterDns {
  readonly server: IpAddr;
  /** Of the cluster, without dots at its ends. */
  readonly domain: string;
}

export const USUAL_DOMAIN = 'cluster.local';
export const KUBELET_CONFIG = '/var/lib/kubelet/config.yaml';

/**
 * What the kubelet gives to containers, from its configuration file (KubeletConfiguration, as kubeadm writes it, YAML or JSON);
 * `undefined` when it says none.
 */
export function clusterDnsOf(kubeletConfig: string): ClusterDns | undefined {
  const list = /(?:^|[{,])\s*"?clusterDNS"?\s*:\s*\[?\s*(?:-\s*)?["']?([0-9a-fA-F:.]+)/m.exec(kubeletConfig)?.[1];
  const server = list === undefined ? undefined : parseAddr(list);
  if (server === undefined) return undefined;
  const domain = /(?:^|[{,])\s*"?clusterDomain"?\s*:\s*["']?([\w.-]+?)\.?["']?\s*(?:[,}#]|$)/m.exec(kubeletConfig)?.[1];
  return { server, domain: domain ?? USUAL_DOMAIN };
}

export type AddressType = 'A' | 'AAAA';
const TYPES: Readonly<Record<AddressType, number>> = { A: 1, AAAA: 28 };
const INTERNET = 1;
const HEADER_BYTES = 12;
const RESPONSE = 0x8000;
const RECURSION_DESIRED = 0x0100;

/** @param name ASCII, labels of 1 to 63 characters. */
export function dnsQuery(id: number, name: string, type: AddressType): Uint8Array {
  const labels = name.split('.').map((label) => new TextEncoder().encode(label));
  const nameBytes = labels.reduce((sum, label) => sum + 1 + label.length, 1);
  const bytes = new Uint8Array(HEADER_BYTES + nameBytes + 4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id);
  view.setUint16(2, RECURSION_DESIRED);
  view.setUint16(4, 1);
  let at = HEADER_BYTES;
  for (const label of labels) {
    bytes[at] = label.length;
    bytes.set(label, at + 1);
    at += 1 + label.length;
  }
  view.setUint16(at + 1, TYPES[type]);
  view.setUint16(at + 3, INTERNET);
  return bytes;
}

interface DnsAnswer {
  /** 0: no error. */
  readonly code: number;
  readonly addresses: readonly IpAddr[];
}

/** Codes of answers that people know by name (RFC 1035, section 4.1.1). */
export const DNS_CODES: Readonly<Record<number, string>> = { 1: 'FORMERR', 2: 'SERVFAIL', 3: 'NXDOMAIN', 5: 'REFUSED' };

/** `undefined` when the bytes are no answer to that query. */
export function readDnsAnswer(bytes: Uint8Array, id: number): DnsAnswer | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint16(2);
  if (view.getUint16(0) !== id || (flags & RESPONSE) === 0) return undefined;
  const [questions, answers] = [view.getUint16(4), view.getUint16(6)];
  let at = HEADER_BYTES;
  for (let i = 0; i < questions; i++) at = afterName(bytes, at) + 4;
  const addresses: IpAddr[] = [];
  for (let i = 0; i < answers; i++) {
    const fixed = afterName(bytes, at);
    if (fixed + 10 > bytes.length) break;
    const [type, length] = [view.getUint16(fixed), view.getUint16(fixed + 8)];
    const data = fixed + 10;
    if (data + length > bytes.length) break;
    if (type === TYPES.A && length === 4) addresses.push(ipv4Of(view.getUint32(data)));
    if (type === TYPES.AAAA && length === 16) addresses.push(ipv6At(view, data));
    at = data + length;
  }
  return { code: flags & 0xf, addresses };
}

/** Where the name ends that begins there: with an empty label, or with a pointer to a part of another name. */
function afterName(bytes: Uint8Array, from: number): number {
  let at = from;
  for (;;) {
    const length = bytes[at] ?? 0;
    if ((length & 0xc0) === 0xc0) return at + 2;
    at += 1 + length;
    if (length === 0) return at;
  }
}
