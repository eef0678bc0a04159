import type { Self } from '../../../src/api/schema.ts';
import { useAgent } from '../agent.ts';
import { duration } from '../format.ts';
import { findingsOf } from '../model/host-figures.ts';
import { hostText, STATE_WORDS } from '../model/hosts.ts';
import { filter, go, overview, route } from '../state.ts';
import { Waiting } from '../waiting.tsx';
import { Figures } from './figures.tsx';
import { Findings } from './findings.tsx';
import { KernelState, RuleLines } from './kernel-state.tsx';

/** These read the kernel of the host. */
const KERNEL_LOOK_MS = 5_000;
/** These start programs on the host, and the agent does so every ten seconds at most. */
const DOCTOR_LOOK_MS = 15_000;

/** Everything of one host. */
export function HostScreen() {
  const now = overview.value;
  if (now === undefined) return <Waiting />;
  const asked = now.hosts.filter(({ state }) => state !== 'peer');
  const wanted = route.value.host;
  const host = asked.find(({ name }) => name === wanted) ?? (wanted === undefined ? asked[0] : undefined);
  if (host === undefined) return <p class="empty">This page does not query {wanted ?? 'any host'}.</p>;
  const shown = asked.filter((one) => one === host || filter.value(hostText(one)));
  return (
    <div class="host">
      <div class="toolbar">
        <label class="end">
          host{' '}
          <select value={host.name} onChange={(event) => go('host', {}, event.currentTarget.value)}>
            {shown.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <span class={host.state === 'ready' ? 'good' : host.state === 'away' ? 'bad' : 'warn'}>
          {STATE_WORDS[host.state]}
        </span>
        {host.reason !== undefined && <span class="reason">{host.reason}</span>}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard. */}
      <section class="host-area" tabIndex={0} aria-label={host.name}>
        <Inside key={host.name} name={host.name} />
      </section>
    </div>
  );
}

function Inside({ name }: { readonly name: string }) {
  const { answer: self } = useAgent(name, '/self');
  const { answer: peers } = useAgent(name, '/peers');
  const { answer: readiness } = useAgent(name, '/readiness');
  const { answer: state, failure: stateFailure } = useAgent(name, '/state', KERNEL_LOOK_MS);
  const { answer: rules, failure: rulesFailure } = useAgent(name, '/rules', KERNEL_LOOK_MS);
  const { answer: doctor, failure: doctorFailure } = useAgent(name, '/doctor', DOCTOR_LOOK_MS);
  if (self === undefined) return <p class="dim">Asking {name}…</p>;
  return (
    <div class="cards">
      <section class="card">
        <h2 class="heading">Agent</h2>
        <Facts self={self} />
      </section>
      <section class="card">
        <h2 class="heading">Findings</h2>
        <Findings
          findings={findingsOf(self, readiness, state, rules, doctor)}
          doctor={doctor}
          doctorFailure={doctorFailure}
        />
      </section>
      <Figures self={self} peers={peers} />
      <section class="card wide">
        <KernelState state={state} failure={stateFailure} />
      </section>
      <section class="card wide">
        <RuleLines rules={rules} failure={rulesFailure} />
      </section>
    </div>
  );
}

function Facts({ self }: { readonly self: Self }) {
  const { lease, external, store, dataPath } = self;
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['version', self.version],
    ['up', duration(self.atMs - self.startedAtMs)],
    ['subnet', lease?.subnets.join(', ')],
    ['lease', leaseWords(self)],
    ['backend', self.backendType],
    ['interface', external && `${external.name}, ${external.addresses.join(', ')}, MTU ${external.mtuBytes}`],
    ['MTU of containers', dataPath.mtuBytes === undefined ? undefined : `${dataPath.mtuBytes} bytes`],
    ['store', `${store.name}, ${store.isReachable ? 'reachable' : 'away'}`],
    ['fast path', dataPath.fastPath?.text],
  ];
  return (
    <dl class="facts">
      {rows.map(([term, text]) =>
        text === undefined ? null : (
          <>
            <dt>{term}</dt>
            <dd>{text}</dd>
          </>
        ),
      )}
    </dl>
  );
}

function leaseWords({ lease, atMs }: Self): string | undefined {
  if (lease === undefined) return 'none';
  const { expiresAtMs, isHeld } = lease;
  const end = expiresAtMs === undefined ? 'does not end' : `ends in ${duration(Math.max(0, expiresAtMs - atMs))}`;
  return isHeld ? end : 'remembered, while the store is away';
}
