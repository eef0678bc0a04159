import { useMemo, useRef } from 'preact/hooks';
import type { Peers, Self } from '../../../src/api/schema.ts';
import { bitRate, bytes, packetRate, percent, si } from '../format.ts';
import { cpuShare, dropsOf, dropWords, pathShares, perSecond } from '../model/host-figures.ts';
import { pathWords } from '../model/hosts.ts';
import { History } from '../model/rates.ts';
import { Sparkline } from './sparkline.tsx';

/** Three minutes. */
const LOOKS = 180;

class HostHistory {
  readonly sent = new History(LOOKS);
  readonly received = new History(LOOKS);
  readonly cpu = new History(LOOKS);
  readonly memory = new History(LOOKS);
  readonly drops = new Map<string, History>();
  last: Self | undefined;
  looks = 0;
  sentBytes: number | undefined;
  receivedBytes: number | undefined;

  /** The same answer twice is one look. */
  take(self: Self): void {
    const before = this.last;
    if (before?.atMs === self.atMs) return;
    this.last = self;
    this.looks++;
    const ms = before === undefined ? 0 : self.atMs - before.atMs;
    const rate = (pick: (one: Self) => number | undefined) => perSecond(before && pick(before), pick(self), ms);
    this.memory.push(self.atMs, self.process.rssBytes);
    const drops = dropsOf(self);
    for (const reason of drops.keys()) if (!this.drops.has(reason)) this.drops.set(reason, new History(LOOKS));
    // One look has no rates: the lines begin with the second.
    if (before === undefined) return;
    this.sent.push(self.atMs, rate(({ totals }) => totals?.tx.packets) ?? null);
    this.received.push(self.atMs, rate(({ totals }) => totals?.rx.packets) ?? null);
    this.sentBytes = rate(({ totals }) => totals?.tx.bytes);
    this.receivedBytes = rate(({ totals }) => totals?.rx.bytes);
    this.cpu.push(self.atMs, cpuShare(before, self) ?? null);
    const old = dropsOf(before);
    for (const [reason, total] of drops)
      this.drops.get(reason)!.push(self.atMs, perSecond(old.get(reason) ?? 0, total, ms) ?? null);
  }
}

/** Rates, drops, paths and the process, each with how it went. */
export function Figures({ self, peers }: { readonly self: Self; readonly peers: Peers | undefined }) {
  const history = useMemo(() => new HostHistory(), []);
  history.take(self);
  const drops = dropsOf(self);
  const { looks } = history;
  const sent = history.sent.values.at(-1);
  const received = history.received.values.at(-1);
  return (
    <>
      <section class="card">
        <h2 class="heading">Packets</h2>
        {self.totals === undefined ? (
          <p class="dim">With this backend the kernel carries packets, and does not count them per peer.</p>
        ) : (
          <>
            <Sparkline
              height={54}
              looks={looks}
              series={[
                { history: history.sent, colour: 'tun' },
                { history: history.received, colour: 'good' },
              ]}
            />
            <dl class="facts">
              <dt class="tun">sent</dt>
              <dd>{rateWords(sent, history.sentBytes)}</dd>
              <dt class="good">received</dt>
              <dd>{rateWords(received, history.receivedBytes)}</dd>
            </dl>
          </>
        )}
      </section>
      <section class="card">
        <h2 class="heading">Paths to peers</h2>
        <Paths peers={peers} />
      </section>
      <section class="card">
        <h2 class="heading">Dropped, by reason</h2>
        {drops.size > 0 && (
          <table>
            <tbody>
              {[...drops].map(([reason, total]) => (
                <tr key={reason}>
                  <td>{reason}</td>
                  <td class="num">{si(total)}</td>
                  <td class="spark-cell">
                    <Sparkline
                      height={20}
                      looks={looks}
                      series={[{ history: history.drops.get(reason)!, colour: 'bad' }]}
                    />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        <p class="dim">{dropWords(self, drops.size)}</p>
      </section>
      <section class="card">
        <h2 class="heading">Process</h2>
        <table>
          <tbody>
            <tr>
              <td>CPU</td>
              <td class="num">{history.cpu.values.at(-1) == null ? '–' : percent(history.cpu.values.at(-1)!)}</td>
              <td class="spark-cell">
                <Sparkline height={26} looks={looks} series={[{ history: history.cpu, colour: 'tun' }]} />
              </td>
            </tr>
            <tr>
              <td>memory</td>
              <td class="num">{bytes(self.process.rssBytes)}</td>
              <td class="spark-cell">
                <Sparkline height={26} looks={looks} series={[{ history: history.memory, colour: 'tun' }]} />
              </td>
            </tr>
          </tbody>
        </table>
      </section>
    </>
  );
}

function rateWords(packets: number | null | undefined, perSecondBytes: number | undefined): string {
  if (packets == null) return '–';
  return perSecondBytes === undefined ? packetRate(packets) : `${packetRate(packets)}, ${bitRate(perSecondBytes)}`;
}

function Paths({ peers }: { readonly peers: Peers | undefined }) {
  const looks = useRef<{ before: Peers | undefined; now: Peers | undefined }>({ before: undefined, now: undefined });
  if (peers !== undefined && looks.current.now !== peers) looks.current = { before: looks.current.now, now: peers };
  if (peers === undefined || peers.peers.length === 0) return <p class="dim">No peers.</p>;
  return (
    <table>
      <thead>
        <tr>
          <th>path</th>
          <th class="num">peers</th>
          <th class="num">of the packets now</th>
        </tr>
      </thead>
      <tbody>
        {pathShares(looks.current.before, peers).map(({ path, peers: count, share }) => (
          <tr key={path}>
            <td class={path === 'skipped' ? 'bad' : ''}>{pathWords(path as Peers['peers'][number]['path'])}</td>
            <td class="num">{count}</td>
            <td class="num">{share === undefined ? '–' : percent(share)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
