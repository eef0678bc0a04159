import { randomBytes } from 'node:crypto';
import { WeftError } from '../errors.ts';
import { formatIpv4, type Ipv4Addr } from '../ip/ipv4.ts';
import { lines } from '../linux/run.ts';
import { Capture } from './capture.ts';
import { CNI_BRIDGE, CONTAINER_DEVICE, HOST_DEVICE } from './namespaces.ts';
import { type OverlayWay, overlaySteps } from './overlay.ts';
import type { LabContainer, LabHost, Topology } from './topology.ts';
import { buildWalk, type PacketForm, type Probe, type Space, type Step, sight, type WalkResult } from './walk.ts';

export interface WalkRequest<M> {
  readonly from: M;
  readonly to: M;
  /** How long the datagram may take to its reader, and the captures to show it; default {@link ARRIVAL_MS}. */
  readonly arrivalMs?: number | undefined;
}

/** Far more than a datagram ever needs, even on a busy machine. */
const ARRIVAL_MS = 5_000;
/** Discard's port (RFC 863): nothing else listens on it in a lab. */
const PROBE_PORT = 9;

/** Sends one UDP datagram between applications in two containers on different hosts, captured on every device of its way. */
export async function walkContainers(
  topology: Topology,
  request: WalkRequest<LabContainer>,
  way: OverlayWay,
  signal?: AbortSignal,
): Promise<WalkResult> {
  const { from, to } = request;
  const [a, b] = [from.host, to.host];
  const steps: Step[] = [
    { kind: 'inferred', node: from.name, space: 'user', place: 'application', evidence: 'sent' },
    { kind: 'inferred', node: from.name, space: 'kernel', place: 'socket · UDP · IP', evidence: 'headers-added' },
    seenOn(from.name, CONTAINER_DEVICE, 'out', 'bare'),
    seenOn(a.name, CNI_BRIDGE, 'in', 'bare'),
    ...overlaySteps(a.name, b.name, way, (form) => underlaySteps(a, b, form)),
    seenOn(b.name, CNI_BRIDGE, 'out', 'bare'),
    seenOn(to.name, CONTAINER_DEVICE, 'in', 'bare'),
    { kind: 'inferred', node: to.name, space: 'kernel', place: 'IP · UDP · socket', evidence: 'headers-removed' },
    { kind: 'inferred', node: to.name, space: 'user', place: 'application', evidence: 'received' },
  ];
  const title = `container to container, ${way.kind === 'direct' ? 'routed without a tunnel' : way.device}`;
  return take(topology, { ...request, title, steps, source: addressOf(from), destination: addressOf(to) }, signal);
}

/** The same between applications on the hosts themselves: what a native socket costs. */
export async function walkHosts(
  topology: Topology,
  request: WalkRequest<LabHost>,
  signal?: AbortSignal,
): Promise<WalkResult> {
  const { from, to } = request;
  const steps: Step[] = [
    { kind: 'inferred', node: from.name, space: 'user', place: 'application', evidence: 'sent' },
    { kind: 'inferred', node: from.name, space: 'kernel', place: 'socket · UDP · IP', evidence: 'headers-added' },
    ...underlaySteps(from, to, 'bare'),
    { kind: 'inferred', node: to.name, space: 'kernel', place: 'IP · UDP · socket', evidence: 'headers-removed' },
    { kind: 'inferred', node: to.name, space: 'user', place: 'application', evidence: 'received' },
  ];
  const title = 'host to host, native socket';
  return take(topology, { ...request, title, steps, source: from.address, destination: to.address }, signal);
}

function underlaySteps(from: LabHost, to: LabHost, form: PacketForm): Step[] {
  return [
    seenOn(from.name, HOST_DEVICE, 'out', form),
    seenOn('underlay', from.switchPort, 'in', form, 'physical'),
    seenOn('underlay', to.switchPort, 'out', form, 'physical'),
    seenOn(to.name, HOST_DEVICE, 'in', form),
  ];
}

function seenOn(
  node: string,
  device: string,
  direction: 'in' | 'out',
  form: PacketForm,
  space: Space = 'kernel',
): Step {
  return { kind: 'captured', node, device, space, direction, form };
}

function addressOf(container: LabContainer): Ipv4Addr {
  if (container.address === undefined)
    throw new WeftError('WEFT_LAB_FAILED', `container ${container.name} has no address yet`);
  return container.address;
}

interface Member {
  readonly name: string;
  readonly namespace: string;
}

interface Expedition extends WalkRequest<Member> {
  readonly title: string;
  readonly source: Ipv4Addr;
  readonly destination: Ipv4Addr;
  readonly steps: readonly Step[];
}

async function take(topology: Topology, expedition: Expedition, signal: AbortSignal | undefined): Promise<WalkResult> {
  const { title, from, to, source, destination, steps, arrivalMs = ARRIVAL_MS } = expedition;
  const token = `weft-walk-${randomBytes(4).toString('hex')}`;
  const probe: Probe = { kind: 'udp', source, destination, port: PROBE_PORT, token };
  await using resources = new AsyncDisposableStack();
  const captures = await Promise.all(
    steps.map(async (step) => {
      if (step.kind !== 'captured') return undefined;
      const namespace = namespaceOf(topology, step.node);
      const capture = await Capture.start(topology, namespace, step.device, { filter: 'udp or ip proto 4' }, signal);
      resources.use(capture);
      return capture;
    }),
  );
  const receiver = await topology.start(to, ['socat', '-u', '-d', '-d', `UDP4-RECV:${PROBE_PORT}`, 'STDOUT'], {
    stderr: 'pipe',
    signal,
  });
  resources.use(receiver);
  // socat's notice once the socket is bound.
  let notice = '';
  for await (const line of lines(receiver.stderr!)) {
    notice = line;
    if (line.includes('starting data transfer loop')) break;
  }
  if (!notice.includes('starting data transfer loop')) {
    throw new WeftError('WEFT_LAB_FAILED', `could not receive UDP on port ${PROBE_PORT} in ${to.namespace}: ${notice}`);
  }
  const deadline = AbortSignal.any([AbortSignal.timeout(arrivalMs), ...(signal === undefined ? [] : [signal])]);
  const delivery = firstOutput(receiver.stdout!, deadline);
  await topology.exec(from, ['socat', '-u', 'STDIN', `UDP4-SENDTO:${formatIpv4(destination)}:${PROBE_PORT}`], {
    stdin: token,
    // A refusal by the kernel shows as hops that were not captured.
    okExitCodes: 'any',
    signal,
  });
  const delivered = (await delivery) === token;
  const sightings = await Promise.all(
    captures.map((capture) => capture?.waitFor((frame) => sight(probe, frame), deadline).catch(() => undefined)),
  );
  signal?.throwIfAborted();
  return buildWalk({ title, probe, from: from.name, to: to.name, steps, sightings, delivered });
}

/** The first piece of output; `undefined` when there was none in time. */
async function firstOutput(stream: NodeJS.ReadableStream, deadline: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve) => {
    stream.once('data', (chunk: Buffer) => resolve(chunk.toString('latin1')));
    stream.once('end', () => resolve(undefined));
    if (deadline.aborted) resolve(undefined);
    deadline.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

function namespaceOf(topology: Topology, node: string): string {
  if (node === 'underlay') return topology.plan.switchNamespace;
  const members: readonly Member[] = [...topology.hosts, ...topology.containers];
  const member = members.find((one) => one.name === node);
  if (member === undefined) throw new WeftError('WEFT_LAB_FAILED', `the lab has no ${node}`);
  return member.namespace;
}
