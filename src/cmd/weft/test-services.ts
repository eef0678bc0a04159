import { randomInt } from 'node:crypto';
import {
  type AddressType,
  type ClusterDns,
  clusterDnsOf,
  DNS_CODES,
  dnsQuery,
  KUBELET_CONFIG,
  readDnsAnswer,
  USUAL_DOMAIN,
} from '../../diagnosis/cluster-dns.ts';
import type { Unchecked } from '../../diagnosis/report.ts';
import { type CheckResult, type Finding, fail, ok } from '../../doctor/check.ts';
import {
  formatAddr,
  formatEndpoint,
  type IpAddr,
  type IpFamily,
  isIpv4,
  parseAddr,
  versionOf,
} from '../../ip/address.ts';
import { exchangeDatagram, type Inside, whyNoConnection } from '../../linux/container-exchange.ts';

const DNS_PORT = 53;
const HTTPS_PORT = 443;
const TRIES = 3;
/** Of one try: a question may be lost once. */
const ANSWER_MS = 1_000;
const CONNECT_MS = 3_000;
const SERVICE = 'kubernetes.default.svc';
const NO_SERVER = `its address is not known: ${KUBELET_CONFIG} names none here; --cluster-dns does`;
const NO_SERVICE =
  'its address is not known: the DNS of the cluster has not told it, and KUBERNETES_SERVICE_HOST is not set here';
const PROXY = 'Check kube-proxy on this host (or what stands in for it)';

/** What this host knows of the cluster that it is a node of, which may be nothing. */
interface ClusterServices {
  readonly dns: ClusterDns | undefined;
  /** Of the Service `kubernetes`, as a pod is told; else DNS has it. */
  readonly api: { readonly to: IpAddr; readonly port: number } | undefined;
}

interface ServiceFacts {
  /** --cluster-dns, --cluster-domain. */
  readonly server: IpAddr | undefined;
  readonly domain: string | undefined;
  /** Whether the leases are those of Nodes: a file of the kubelet may be left from another time. */
  readonly isNode: boolean;
  readonly readText: (path: string) => Promise<string | undefined>;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** `undefined` where this host is no node of Kubernetes, and nobody says otherwise. */
export async function clusterServices(facts: ServiceFacts): Promise<ClusterServices | undefined> {
  const { server, domain, isNode, readText, environment } = facts;
  const onFile = isNode ? clusterDnsOf((await readText(KUBELET_CONFIG)) ?? '') : undefined;
  const dns =
    server === undefined
      ? onFile && { ...onFile, domain: domain ?? onFile.domain }
      : { server, domain: domain ?? onFile?.domain ?? USUAL_DOMAIN };
  const to = parseAddr(environment.KUBERNETES_SERVICE_HOST ?? '');
  const port = Number(environment.KUBERNETES_SERVICE_PORT ?? HTTPS_PORT);
  const api = isNode && to !== undefined ? { to, port } : undefined;
  return isNode || dns !== undefined ? { dns, api } : undefined;
}

/** What is not checked where no container can ask. */
export function uncheckedServices(services: ClusterServices | undefined, reason: string): readonly Unchecked[] {
  return services === undefined ? [] : ['dns', 'service'].map((name) => ({ name, reason }));
}

/** A container that is asked from, with the families that it has an address of. */
interface AskingContainer {
  readonly families: readonly IpFamily[];
  readonly inside: Inside;
}

interface ServiceResults {
  readonly checks: readonly CheckResult[];
  readonly unchecked: readonly Unchecked[];
}

/** Whether a container gets answers of the cluster's DNS, and reaches the Service `kubernetes`. */
export async function checkServices(
  container: AskingContainer,
  { dns, api }: ClusterServices,
  signal: AbortSignal,
): Promise<ServiceResults> {
  const checks: CheckResult[] = [];
  const unchecked: Unchecked[] = [];
  let to = api;
  if (dns === undefined) unchecked.push({ name: 'dns', reason: NO_SERVER });
  else if (!has(container, dns.server)) unchecked.push({ name: 'dns', reason: withoutFamilyOf(dns.server) });
  else {
    const looksAt = `the cluster’s DNS, ${formatAddr(dns.server)}, from a container`;
    const { finding, address } = await askDns(container, dns, signal);
    checks.push({ name: 'dns', looksAt, ...finding });
    if (address !== undefined) to ??= { to: address, port: HTTPS_PORT };
  }
  if (to === undefined) unchecked.push({ name: 'service', reason: NO_SERVICE });
  else if (!has(container, to.to)) unchecked.push({ name: 'service', reason: withoutFamilyOf(to.to) });
  else {
    const at = formatEndpoint({ addr: to.to, port: to.port });
    const why = await whyNoConnection(container.inside, { ...to, waitMs: CONNECT_MS }, signal);
    const finding =
      why === undefined
        ? ok(`${at} takes connections`)
        : fail(
            `a container cannot connect to the Service kubernetes, ${at}: ${why}`,
            `${PROXY}, and that its endpoints are reached: kubectl get endpointslices -l kubernetes.io/service-name=kubernetes.`,
          );
    checks.push({ name: 'service', looksAt: 'the Service kubernetes, from a container', ...finding });
  }
  return { checks, unchecked };
}

function has({ families }: AskingContainer, address: IpAddr): boolean {
  return families.includes(versionOf(address));
}

function withoutFamilyOf(address: IpAddr): string {
  return `containers of this host have no address like ${formatAddr(address)}`;
}

async function askDns(
  { inside }: AskingContainer,
  { server, domain }: ClusterDns,
  signal: AbortSignal,
): Promise<{ readonly finding: Finding; readonly address: IpAddr | undefined }> {
  const name = `${SERVICE}.${domain}`;
  // The Service has an address of the first family of the cluster, which that of DNS has as well.
  const type: AddressType = isIpv4(server) ? 'A' : 'AAAA';
  let why = '';
  for (let left = TRIES; left > 0; left--) {
    const id = randomInt(0x1_0000);
    const target = { to: server, port: DNS_PORT, waitMs: ANSWER_MS };
    const exchange = await exchangeDatagram(inside, target, dnsQuery(id, name, type), signal);
    const answer = exchange.kind === 'answered' ? readDnsAnswer(exchange.bytes, id) : undefined;
    if (answer?.code === 0) {
      const [address] = answer.addresses;
      const found = address === undefined ? 'has no address' : `is ${formatAddr(address)}`;
      return { finding: ok(`it answers: ${name} ${found}`), address };
    }
    if (answer !== undefined) why = `it answers ${DNS_CODES[answer.code] ?? `code ${answer.code}`} for ${name}`;
    else why = exchange.kind === 'failed' ? exchange.reason : 'its answer cannot be read';
  }
  const found = `containers get no name from the cluster’s DNS, ${formatAddr(server)}: ${why}`;
  const remedy = `${PROXY}, and that the pods of DNS run: kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide. If weft test names a path to their host, fix that first.`;
  return { finding: fail(found, remedy), address: undefined };
}
