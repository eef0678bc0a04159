import { useEffect, useRef } from 'preact/hooks';
import type { LinkView, Overview } from '../../../src/ui/overview.ts';
import { hasLostFocus } from '../focus.ts';
import { bitRate, duration, packetRate, percent, si } from '../format.ts';
import { LINK_TONE, pathWords, STATE_WORDS } from '../model/hosts.ts';
import { linkKey } from '../model/rates.ts';
import { formatRoute } from '../routes.ts';
import { choose, follow, rates } from '../state.ts';

const MAX_LINKS = 60;

/** One host, and how it reaches each other. */
export function PeerCard({ overview, host: index }: { readonly overview: Overview; readonly host: number }) {
  const host = overview.hosts[index]!;
  const links = overview.links.filter(({ from, to }) => from === index || to === index);
  const outward = links.filter(({ from }) => from === index);
  // Of a host that nobody asks, others know how they reach it.
  const shown = outward.length > 0 ? outward : links;
  const address = formatRoute('host', {}, host.name);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (hasLostFocus()) heading.current?.focus();
  }, [host.name]);
  return (
    <>
      <section class="section">
        <div class="heading-row">
          <h2 class="title plain cut" tabIndex={-1} ref={heading} title={host.name}>
            {host.name}
          </h2>
          <button type="button" class="dim nowrap" onClick={() => choose({ host: undefined })}>
            all hosts
          </button>
        </div>
        <p
          class={
            host.state === 'ready' ? 'good' : host.state === 'away' ? 'bad' : host.state === 'peer' ? 'dim' : 'warn'
          }
        >
          {STATE_WORDS[host.state]}
        </p>
        {host.reason !== undefined && <p class="reason">{host.reason}</p>}
        <dl class="facts top">
          <dt>address</dt>
          <dd class="mono">{host.addresses.join(', ') || '–'}</dd>
          <dt>subnet</dt>
          <dd class="mono">{host.subnets.join(', ') || '–'}</dd>
          <dt>backend</dt>
          <dd>{host.backendType ?? '–'}</dd>
          {host.mtuBytes !== undefined && (
            <>
              <dt>MTU</dt>
              <dd>{host.mtuBytes} bytes</dd>
            </>
          )}
        </dl>
        {host.state !== 'peer' && (
          <p class="top">
            <a class="button" href={address} onClick={(event) => follow(event, address)}>
              Look inside
            </a>
          </p>
        )}
      </section>
      {shown.slice(0, MAX_LINKS).map((link) => (
        <Link key={`${link.from} ${link.to}`} overview={overview} link={link} host={index} />
      ))}
      {shown.length > MAX_LINKS && <p class="section dim">and {shown.length - MAX_LINKS} more, in the matrix</p>}
    </>
  );
}

interface LinkProps {
  readonly overview: Overview;
  readonly link: LinkView;
  readonly host: number;
}

function Link({ overview, link, host }: LinkProps) {
  const other = overview.hosts[link.from === host ? link.to : link.from]!;
  const tone = LINK_TONE[link.health];
  const rate = rates.value.get(linkKey(overview, link));
  const back = rates.value.get(linkKey(overview, { from: link.to, to: link.from }));
  return (
    <section class="section">
      <div class="heading-row">
        <h3>
          <i class={`mark ${tone}`} aria-hidden="true" /> {link.from === host ? 'to' : 'from'}{' '}
          <button type="button" class="link" onClick={() => choose({ host: other.name })}>
            {other.name}
          </button>
        </h3>
        <span class="dim">{pathWords(link.path)}</span>
      </div>
      {link.why !== undefined && <p class={tone}>{link.why}</p>}
      <dl class="facts">
        <dt>round trip</dt>
        <dd>{link.rttMs === undefined ? 'not measured' : duration(link.rttMs)}</dd>
        {link.lossRatio !== undefined && (
          <>
            <dt>loss</dt>
            <dd>{percent(link.lossRatio)}</dd>
          </>
        )}
        {link.pathMtuBytes !== undefined && (
          <>
            <dt>path MTU</dt>
            <dd>{link.pathMtuBytes} bytes</dd>
          </>
        )}
        <dt>sent</dt>
        <dd>
          {link.packets === undefined
            ? 'the kernel counts no single peer'
            : rate === undefined
              ? `${si(link.packets)} packets`
              : `${packetRate(rate.packets)}, ${bitRate(rate.bytes)}`}
        </dd>
        {back !== undefined && (
          <>
            <dt>received</dt>
            <dd>
              {packetRate(back.packets)}, {bitRate(back.bytes)}
            </dd>
          </>
        )}
        {(link.drops ?? 0) > 0 && (
          <>
            <dt>refused</dt>
            <dd>{si(link.drops!)} packets since the start</dd>
          </>
        )}
      </dl>
    </section>
  );
}
