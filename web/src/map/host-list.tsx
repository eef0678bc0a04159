import { useEffect, useMemo, useRef } from 'preact/hooks';
import { hasLostFocus } from '../focus.ts';
import { count, packetRate } from '../format.ts';
import { hostText, hostTones, isAbout, labelsOf, problemsOf, STATE_WORDS } from '../model/hosts.ts';
import { linkKey } from '../model/rates.ts';
import { choose, filter, overview, rates } from '../state.ts';

/** The screen would not show more, and all of them are on the map. */
const MAX_ROWS = 600;
const MAX_PROBLEMS = 12;

/** What the map shows, as a list. @param returnTo the host whose card was open before. */
export function HostList({ returnTo }: { readonly returnTo: string | undefined }) {
  const now = overview.value!;
  const tones = useMemo(() => hostTones(now), [now]);
  const problems = useMemo(
    () => problemsOf(now).filter((problem) => isAbout(problem, now, filter.value)),
    [now, filter.value],
  );
  const labels = useMemo(() => labelsOf(now.hosts.map(({ name }) => name)), [now]);
  const left = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (hasLostFocus()) left.current?.focus();
  }, []);
  const sums = useMemo(() => {
    const total = now.hosts.map(() => 0);
    for (const link of now.links) {
      const rate = rates.value.get(linkKey(now, link))?.packets ?? 0;
      total[link.from]! += rate;
      total[link.to]! += rate;
    }
    return total;
  }, [now, rates.value]);
  const rows = now.hosts
    .map((host, index) => ({ host, index }))
    .filter(({ host }) => filter.value(hostText(host)))
    .slice(0, MAX_ROWS);
  return (
    <>
      {problems.length > 0 && (
        <section class="section">
          <h2>{count(problems.length, 'problem')}</h2>
          {problems.slice(0, MAX_PROBLEMS).map(({ tone, title, text, host }) => (
            <button
              type="button"
              class={`problem ${tone}`}
              key={title}
              onClick={() => choose({ host: now.hosts[host]!.name })}
            >
              <strong>{title}</strong>
              <span>{text}</span>
            </button>
          ))}
          {problems.length > MAX_PROBLEMS && <p class="dim">and {problems.length - MAX_PROBLEMS} more</p>}
        </section>
      )}
      <section class="section">
        <h2>
          {rows.length === now.hosts.length
            ? count(rows.length, 'host')
            : `${rows.length} of ${count(now.hosts.length, 'host')}`}
        </h2>
        <ul class="rows flush">
          {rows.map(({ host, index }) => (
            <li key={host.name}>
              <button
                type="button"
                ref={host.name === returnTo ? left : null}
                onClick={() => choose({ host: host.name })}
              >
                <i class={`mark ${tones[index]}`} aria-hidden="true" />
                <span class="name" title={host.name}>
                  {labels[index]} <span class="dim mono">{host.subnets[0] ?? STATE_WORDS[host.state]}</span>
                  <span class="sr">, {STATE_WORDS[host.state]}</span>
                </span>
                <span class="num dim">{packetRate(sums[index]!)}</span>
              </button>
            </li>
          ))}
        </ul>
      </section>
    </>
  );
}
