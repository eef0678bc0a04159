import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../../test/fakes/fake-inspection.ts';
import type { Asked } from './agent-target.ts';
import { renderClusterStatus, type Status } from './cluster-status.ts';
import { problemsOf } from './status-problems.ts';

function node(name: string, change: (agent: FakeInspection) => void = () => {}): Asked<Status> {
  const agent = new FakeInspection();
  agent.list = agent.list.filter(({ path }) => path !== 'skipped');
  agent.own = { ...agent.own, peers: { total: 2, skipped: 0, refusedEntries: 0 } };
  change(agent);
  const answers = { self: agent.self(), peers: agent.peers(), readiness: agent.readiness(), events: [] };
  return { name, answer: { ...answers, problems: problemsOf(answers) } };
}

describe('the status of a cluster', () => {
  it('is a line for each node where all are healthy', () => {
    const text = renderClusterStatus([node('worker-1'), node('worker-20')]);
    const line = 'ready, up 0s, 10.244.1.0/24, peers 2: 1 fast-path, 1 vxlan';
    assert.equal(text, `✔ worker-1   ${line}\n✔ worker-20  ${line}\n\n2 of 2 nodes are healthy.\n`);
  });

  it('has all that is known of a node that is not healthy, and of no other', () => {
    const down = (agent: FakeInspection): void => {
      agent.own = { ...agent.own, external: { ...agent.own.external!, isUp: false } };
    };
    const warned = (agent: FakeInspection): void => {
      agent.own = { ...agent.own, store: { ...agent.own.store, isConfigOutdated: true } };
    };
    const away = { name: 'worker-4', error: new Error('x'), text: 'cannot reach the agent at worker-4' };
    const text = renderClusterStatus([node('worker-1'), node('worker-2', warned), node('worker-3', down), away]);
    const lines = text.split('\n');
    assert.deepEqual(
      lines.slice(0, 4).map((line) => line.slice(0, 30)),
      [
        '✔ worker-1  ready, up 0s, 10.2',
        '! worker-2  1 warning, ready, ',
        '✖ worker-3  1 problem, ready, ',
        '✖ worker-4  did not answer',
      ],
    );
    assert.deepEqual(
      lines.filter((line) => line.startsWith('== ')),
      ['== worker-3', '== worker-4'],
    );
    assert.match(text, /^== worker-3\nAgent +ready on node-1[\s\S]*\n✖ the external interface eth0 is down\n {2}→ /m);
    assert.match(text, /^== worker-4\n✖ cannot reach the agent at worker-4\n\n2 of 4 nodes are healthy\.\n$/m);
    assert.doesNotMatch(text, /network configuration has changed/);
  });

  it('shows no control characters of a name', () => {
    assert.doesNotMatch(renderClusterStatus([node('a\u001b[31m')]), /\p{Cc}(?<!\n)/u);
  });
});
