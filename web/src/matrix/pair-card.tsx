import { Fragment } from 'preact';
import type { LinkView, Overview } from '../../../src/ui/overview.ts';
import { bitRate, duration, packetRate, percent } from '../format.ts';
import { figureWords, LINK_TONE, pathWords } from '../model/hosts.ts';
import { linkKey } from '../model/rates.ts';
import { Remedy } from '../remedy.tsx';
import { formatRoute } from '../routes.ts';
import { follow, rates } from '../state.ts';

/** Both directions between two hosts. */
export function PairCard({
  overview,
  from,
  to,
}: {
  readonly overview: Overview;
  readonly from: number;
  readonly to: number;
}) {
  const find = (a: number, b: number): LinkView | undefined =>
    overview.links.find((link) => link.from === a && link.to === b);
  const walk = formatRoute('walk', { from: overview.hosts[from]!.name, to: overview.hosts[to]!.name });
  return (
    <section class="section">
      <h2>Pair</h2>
      <Direction overview={overview} link={find(from, to)} from={from} to={to} />
      <Direction overview={overview} link={find(to, from)} from={to} to={from} />
      <a class="button" href={walk} onClick={(event) => follow(event, walk)}>
        Walk a packet
      </a>
    </section>
  );
}

interface DirectionProps {
  readonly overview: Overview;
  readonly link: LinkView | undefined;
  readonly from: number;
  readonly to: number;
}

function Direction({ overview, link, from, to }: DirectionProps) {
  const tone = link === undefined ? 'idle' : LINK_TONE[link.health];
  const rate = rates.value.get(linkKey(overview, { from, to }));
  return (
    <div class="direction">
      <h3>
        <i class={`mark ${tone}`} aria-hidden="true" /> {overview.hosts[from]!.name} → {overview.hosts[to]!.name}
      </h3>
      {link?.why !== undefined && <p class={tone}>{link.why}</p>}
      {link?.remedy !== undefined && (
        <p>
          <Remedy text={link.remedy} />
        </p>
      )}
      <dl class="facts">
        <dt>path</dt>
        <dd>{pathWords(link?.path)}</dd>
        <dt>round trip</dt>
        <dd>{link?.rttMs === undefined ? 'not measured' : duration(link.rttMs)}</dd>
        <dt>loss</dt>
        <dd>{link?.lossRatio === undefined ? 'not measured' : percent(link.lossRatio)}</dd>
        <dt>path MTU</dt>
        <dd>{link?.pathMtuBytes === undefined ? 'not measured' : `${link.pathMtuBytes} bytes`}</dd>
        {link?.families?.map((figures) => (
          <Fragment key={figures.family}>
            <dt>{figures.family}</dt>
            <dd>{figureWords(figures)}</dd>
          </Fragment>
        ))}
        {rate !== undefined && (
          <>
            <dt>rate</dt>
            <dd>
              {packetRate(rate.packets)}, {bitRate(rate.bytes)}
            </dd>
          </>
        )}
      </dl>
    </div>
  );
}
