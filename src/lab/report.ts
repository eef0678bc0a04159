/** What `weft lab` shows people, from the result alone. Pure: the same result gives the same lines. */
import { counted } from '../counted.ts';
import type { HostResult, LabResult, PingResult, RouteResult, StageResult } from './lab-result.ts';
import { percentile } from './ping-output.ts';
import { type Line, padLine, paint, type Span, STYLE, type Style, span, table, wrap } from './text.ts';
import type { Hop, PacketSummary, Space, Walk } from './walk.ts';

export interface ReportOptions {
  readonly colour: boolean;
  /** Columns of the terminal. */
  readonly width: number;
}

/** Enough for the two walks side by side. */
export const WIDE_COLUMNS = 136;

export function renderBanner(lab: { readonly id: string; readonly hosts: number; readonly backend: string }): Line {
  return [
    span('weft lab ', STYLE.bold),
    span(lab.id, STYLE.bold),
    span(` · ${lab.hosts} hosts, ${lab.hosts * 2} containers, backend ${lab.backend}`, STYLE.dim),
  ];
}

export function renderStage(stage: StageResult): Line {
  return [
    span('  '),
    stage.ok ? span('✔', STYLE.good) : span('✘', STYLE.badBold),
    span(` ${stage.title.padEnd(24)}`, stage.ok ? STYLE.bold : STYLE.badBold),
    span(`${(stage.durationMs / 1000).toFixed(2)} s`.padStart(8), STYLE.dim),
    span(`   ${stage.summary.split('\n', 1)[0]}`),
  ];
}

/** Everything after the stages. */
export function renderReport(result: LabResult, options: ReportOptions): string {
  const lines: Line[] = [];
  const section = (title: string, body: readonly Line[]) => {
    if (body.length > 0) lines.push([], [span(title, STYLE.heading)], ...body.map((line) => [span('  '), ...line]));
  };
  if (result.hosts.some((host) => host.subnet !== null)) section('Hosts', renderHosts(result));
  if (result.pings !== null) section(...renderPings(result.pings, result.hosts));
  if (result.throughput !== null) section('Throughput', renderThroughput(result.throughput));
  section('Routes', renderRoutes(result));
  lines.push(...renderWalks(result, options.width));
  lines.push([], ...renderVerdict(result));
  if (result.kept) lines.push([], ...renderCommands(result));
  return `${lines.map((line) => paint(line, options.colour)).join('\n')}\n`;
}

function renderHosts(result: LabResult): Line[] {
  const leases = new Map((result.leases ?? []).map((lease) => [lease.host, lease]));
  return table(
    [
      ['host', 'address', 'lease', 'expires', 'MTU', 'containers', 'agent'],
      ...result.hosts.map((host) => {
        const lease = leases.get(host.name);
        const memory = host.agent?.memoryMiB;
        return [
          host.name,
          host.address,
          lease?.subnet ?? host.subnet ?? '–',
          lease === undefined ? '–' : (lease.expiresAt?.replace('T', ' ').replace(/:\d\d\.\d+Z$/, ' UTC') ?? 'never'),
          String(host.mtuBytes ?? '–'),
          host.containers.map((container) => container.address ?? '–').join(' '),
          host.agent === null
            ? '–'
            : `ready in ${(host.agent.readyMs / 1000).toFixed(2)} s${typeof memory === 'number' ? `, ${memory.toFixed(0)} MiB` : ''}`,
        ];
      }),
    ],
    STYLE.dim,
  );
}

/** Above this many hosts, a cell of the matrix is a shade instead of a number. */
const NUMBERS_UP_TO = 12;
const SHADES = ['░░', '▒▒', '▓▓', '██'] as const;
const HEAT: readonly Style[] = ['38;5;71', '38;5;149', '38;5;220', '38;5;208'];
const LOSS: Style = '1;97;41';

function renderPings(pings: PingResult, hosts: readonly HostResult[]): [string, Line[]] {
  const medians = hostMedians(pings, hosts);
  const sorted = medians
    .flat()
    .filter((value): value is number => typeof value === 'number')
    .sort((a, b) => a - b);
  const limits = [0.25, 0.5, 0.75].map((share) => percentile(sorted, share));
  const heatOf = (value: number) => limits.filter((limit) => value > limit).length;
  const numbers = hosts.length <= NUMBERS_UP_TO;
  const cell = (value: number | 'lost' | undefined): Span[] => {
    if (value === undefined) return [span(numbers ? '      ' : '  ')];
    if (value === 'lost') return numbers ? [span(' '), span(' lost', LOSS)] : [span('!!', LOSS)];
    const heat = heatOf(value);
    return numbers ? [span(value.toFixed(0).padStart(6), HEAT[heat]!)] : [span(SHADES[heat]!, HEAT[heat]!)];
  };
  const label = (name: string) => name.padStart(4);
  const body: Line[] = medians.map((row, i) => [span(`${label(hosts[i]!.name)} `, STYLE.dim), ...row.flatMap(cell)]);
  if (numbers) body.unshift([span(`     ${hosts.map((host) => host.name.padStart(6)).join('')}`, STYLE.dim)]);
  if (!numbers && sorted.length > 0) {
    const bounds = [sorted[0]!, ...limits, sorted.at(-1)!].map((value) => value.toFixed(0));
    body.push([
      span('     '),
      ...SHADES.flatMap((shade, i) => [span(shade, HEAT[i]!), span(` ${bounds[i]}–${bounds[i + 1]} µs   `, STYLE.dim)]),
    ]);
  }
  return ['Round trip between hosts, median in µs (row to column)', body];
}

/** Median round trip in µs of all container pairs from host to host; `lost` when any packet was. */
function hostMedians(pings: PingResult, hosts: readonly HostResult[]): (number | 'lost' | undefined)[][] {
  const hostOf = new Map(hosts.flatMap((host, i) => host.containers.map((container) => [container.name, i] as const)));
  const cells: (number[] | 'lost')[][] = hosts.map(() => hosts.map(() => []));
  for (const pair of pings.pairs) {
    const [from, to] = [hostOf.get(pair.from), hostOf.get(pair.to)];
    if (from === undefined || to === undefined) continue;
    const cell = cells[from]![to]!;
    if (pair.received === 0 || pair.received < pair.sent || pair.rttMs === null) cells[from]![to] = 'lost';
    else if (cell !== 'lost') cell.push(pair.rttMs.median * 1000);
  }
  return cells.map((row) =>
    row.map((cell) => {
      if (cell === 'lost') return 'lost';
      return cell.length === 0
        ? undefined
        : percentile(
            cell.toSorted((a, b) => a - b),
            0.5,
          );
    }),
  );
}

function renderThroughput(throughput: NonNullable<LabResult['throughput']>): Line[] {
  const { intervalsGbps } = throughput;
  const most = Math.max(...intervalsGbps);
  const bars = '▁▂▃▄▅▆▇█';
  const graph = intervalsGbps.map((value) => bars[Math.min(7, Math.floor((value / most) * 7.99))] ?? ' ').join('');
  const range = `${Math.min(...intervalsGbps).toFixed(2)} … ${most.toFixed(2)}`;
  return [
    [
      span(`${throughput.gbps.toFixed(2)} Gbit/s  `, STYLE.bold),
      span(graph, STYLE.good),
      span(`  ${range} in ${intervalsGbps.length} intervals, ${throughput.retransmits} retransmits, `, STYLE.dim),
      span(`${throughput.from} → ${throughput.to}`, STYLE.dim),
    ],
  ];
}

/** Whose containers a route of the first host leads to; `undefined` for a route of another purpose. */
function leadsTo({ network, hosts, overlay }: LabResult, { destination, device }: RouteResult): string | undefined {
  if (device !== overlay?.device) return undefined;
  const through = overlay.kind === 'tun' ? ', through the agent' : '';
  if (destination === network) return `every other container${through}`;
  const host = hosts.find(({ subnet }) => subnet === destination);
  return host && `the containers of ${host.name}`;
}

/** One host in full; the others follow from it and the hosts' table, and are in the JSON. */
function renderRoutes(result: LabResult): Line[] {
  const first = result.routes?.[0];
  if (first === undefined) return [];
  return [
    ...first.routes.map((route): Line => {
      const to = leadsTo(result, route);
      const via = route.gateway === null ? '' : ` via ${route.gateway}`;
      const protocol = route.protocol === null ? '' : ` proto ${route.protocol}`;
      return [
        span(`${first.host}  `, STYLE.dim),
        span(`${route.destination}${via} dev ${route.device}`, to === undefined ? undefined : STYLE.bold),
        span(protocol, STYLE.dim),
        ...(to === undefined ? [] : [span(`   ← ${to}`, STYLE.physical)]),
      ];
    }),
    ...(result.hosts.length > 1
      ? [[span(`the same on ${result.hosts.length - 1} more, with their own subnets`, STYLE.dim)]]
      : []),
  ];
}

const SPACE_STYLE: Readonly<Record<Space, Style>> = {
  user: STYLE.user,
  kernel: STYLE.kernel,
  physical: STYLE.physical,
};
const GUTTER = 8;
const COLUMN_GAP = 3;

function renderWalks(result: LabResult, width: number): Line[] {
  const walks = [result.walk, result.nativeWalk].filter((walk) => walk !== null);
  if (walks.length === 0) return [];
  const legend: Line = [
    span('  '),
    span('user', STYLE.user),
    span(' space · '),
    span('kernel', STYLE.kernel),
    span(' space · '),
    span('physical', STYLE.physical),
    span(' layer (here a bridge between namespaces) · '),
    span('● captured  ○ concluded from the captures around it', STYLE.dim),
  ];
  const heading: Line[] = [[], [span('The walk of one packet', STYLE.heading)], legend, []];
  const [overlay, native] = [result.walk, result.nativeWalk];
  if (overlay !== null && native !== null && width >= WIDE_COLUMNS) {
    return [...heading, ...besideEachOther(overlay, native, Math.floor((width - COLUMN_GAP - 2) / 2))];
  }
  return [
    ...heading,
    ...walks.flatMap((walk) => [...walkTitle(walk), ...columnOf(walk, Math.min(width - 4, 100)).flat(), []]),
  ].map((line, i) => (i < heading.length ? line : [span('  '), ...line]));
}

function walkTitle(walk: Walk): Line[] {
  const forwarders = walk.forwarderUs > 0 ? `, of these ${walk.forwarderUs.toFixed(1)} µs at the agents` : '';
  return [
    [span(`${walk.from} → ${walk.to}`, STYLE.bold), span(`  ${walk.title}`)],
    [span(`${walk.durationUs.toFixed(1)} µs on the way${forwarders}`, STYLE.dim)],
  ];
}

/** The lines of each hop. */
function columnOf(walk: Walk, width: number): Line[][] {
  return walk.hops.map((hop, i) => hopLines(hop, walk.hops[i - 1], width));
}

function hopLines(hop: Hop, previous: Hop | undefined, width: number): Line[] {
  const style = SPACE_STYLE[hop.space];
  const label = previous?.space === hop.space ? '' : hop.space;
  const gutter = (text: string): Span[] => [span(text.padEnd(GUTTER), style), span('┃ ', style)];
  const node = previous?.node === hop.node ? '' : hop.node;
  const time = hop.atUs === undefined ? '' : `+${hop.atUs.toFixed(1)} µs`;
  const arrow = hop.direction === undefined ? '' : hop.direction === 'out' ? ' ▸ out' : ' ◂ in';
  const title: Span[] = [
    span(node.padEnd(9), STYLE.bold),
    span(hop.captured ? '● ' : '○ ', style),
    span(hop.place, STYLE.bold),
    span(arrow, STYLE.dim),
  ];
  const first = padLine([...gutter(label), ...title], width - time.length);
  const details: Line[] = [];
  if (hop.packet !== undefined) details.push(packetLine(hop.packet));
  if (hop.inner !== undefined) details.push([span('└ ', STYLE.dim), ...packetLine(hop.inner)]);
  const indent = '   ';
  for (const text of hop.note === undefined ? [] : wrap(hop.note, width - GUTTER - 2 - indent.length)) {
    details.push([span(text, STYLE.dim)]);
  }
  return [[...first, span(time, STYLE.bold)], ...details.map((line) => [...gutter(''), span(indent), ...line])];
}

function packetLine(packet: PacketSummary): Line {
  const port = (value: number | undefined) => (value === undefined ? '' : `:${value}`);
  const ends = `${packet.source}${port(packet.sourcePort)} → ${packet.destination}${port(packet.destinationPort)}`;
  return [span(ends), span(` ttl ${packet.ttl}`, STYLE.bold), span(` len ${packet.lengthBytes}`, STYLE.dim)];
}

/** Hops at the same place in the same line; what only containers need leaves a gap on the right. */
function besideEachOther(overlay: Walk, native: Walk, width: number): Line[] {
  const partner = new Map<number, number>();
  const lastHeld = { left: -1 };
  native.hops.forEach((hop, i) => {
    const fromEnd = native.hops.length - i;
    const isTail = native.hops.slice(i).every((one) => !one.captured);
    const isHead = native.hops.slice(0, i + 1).every((one) => !one.captured);
    let left = overlay.hops.findIndex(
      (other, j) => j > lastHeld.left && other.node === hop.node && other.place === hop.place,
    );
    if (isHead) left = i;
    else if (isTail) left = overlay.hops.length - fromEnd;
    if (left <= lastHeld.left) left = lastHeld.left + 1;
    partner.set(left, i);
    lastHeld.left = left;
  });
  const leftColumn = columnOf(overlay, width);
  const rightColumn = columnOf(native, width);
  const between: Line = [span(' '.repeat(GUTTER)), span('┊', STYLE.dim)];
  const lines: Line[] = [];
  const join = (left: Line, right: Line) => {
    lines.push([span('  '), ...padLine(left, width), span(' '.repeat(COLUMN_GAP)), ...right]);
  };
  const [leftTitle, rightTitle] = [walkTitle(overlay), walkTitle(native)];
  leftTitle.forEach((line, i) => void join(line, rightTitle[i] ?? []));
  lines.push([]);
  let shown = 0;
  leftColumn.forEach((left, i) => {
    const index = partner.get(i);
    const right = index === undefined ? [] : rightColumn[index]!;
    if (index !== undefined) shown++;
    const rest = shown === 0 || shown === native.hops.length ? [] : between;
    for (let y = 0; y < Math.max(left.length, right.length); y++) {
      const spacer: Line = [span(' '.repeat(GUTTER)), span('┃', SPACE_STYLE[overlay.hops[i]!.space])];
      join(left[y] ?? spacer, right[y] ?? rest);
    }
  });
  return lines;
}

function renderVerdict(result: LabResult): Line[] {
  const time = `${(result.durationMs / 1000).toFixed(1)} s`;
  if (result.ok) {
    return [[span('✔ everything passed', STYLE.goodBold), span(` in ${time}`, STYLE.dim)]];
  }
  return [
    [span(`✘ ${counted(result.failures.length, 'failure')}`, STYLE.badBold), span(` in ${time}`, STYLE.dim)],
    ...result.failures.flatMap((failure) =>
      failure.split('\n').map((line, i): Line => [span(`${i === 0 ? '  · ' : '    '}${line}`, STYLE.bad)]),
    ),
  ];
}

/** What a kept lab invites to. */
function renderCommands(result: LabResult): Line[] {
  const [a, b] = [result.hosts[0], result.hosts[1]];
  const device = result.overlay?.device ?? 'any';
  const removal = `weft lab down ${result.id}`;
  const commands: [string, string][] = [];
  if (result.page !== null) commands.push(['watch it in a browser', result.page]);
  const [from, to] = [a?.containers[0], b?.containers[0]];
  if (a !== undefined && b !== undefined && from !== undefined && to?.address) {
    commands.push(
      ['ping from container to container', `ip netns exec ${from.namespace} ping ${to.address}`],
      ['a shell in a container', `ip netns exec ${from.namespace} bash`],
      [
        'throughput',
        `ip netns exec ${to.namespace} iperf3 -s -1 -D; ip netns exec ${from.namespace} iperf3 -c ${to.address}`,
      ],
      ['packets on their way to the other hosts', `ip netns exec ${a.namespace} tcpdump -ni ${device}`],
      ['and between the hosts', `ip netns exec ${a.namespace} tcpdump -ni eth0 host ${b.address}`],
      ['routes', `ip -n ${a.namespace} route`],
    );
    const route = result.routes?.[0]?.routes.find((one) => leadsTo(result, one) !== undefined);
    if (route !== undefined) {
      commands.push([
        'delete a route to other hosts: it comes back',
        `ip -n ${a.namespace} route delete ${route.destination} dev ${route.device}; sleep 1; ip -n ${a.namespace} route`,
      ]);
    }
    if (a.agent !== null) {
      commands.push(['log of an agent', `tail -f ${a.agent.logPath}`]);
      commands.push([
        'kill an agent: its device, address and routes stay',
        `kill -9 ${a.agent.pid}; ip -n ${a.namespace} address show ${device}; ip -n ${a.namespace} route`,
      ]);
    }
  }
  for (const { what, command } of result.store?.commands ?? []) commands.push([what, command]);
  commands.push(['remove it all', removal]);
  const widest = Math.max(...commands.map(([what]) => what.length));
  return [
    [span(`The lab keeps running.`, STYLE.heading), span(' Things to try:', STYLE.dim)],
    ...commands.map(([what, command]): Line => [span(`  ${what.padEnd(widest)}  `, STYLE.dim), span(command)]),
  ];
}
