import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { HeaderText } from '../../diagnosis/trace.ts';
import { renderTrace } from './trace-report.ts';
import { renderWatched } from './trace-watch.ts';

/** The kernel takes that for the name of a device: a window's title, and a screen that is cleared. */
const DEVICE = '\x1b]0;own\x07\x1b[2J\x9b1';
const SHOWN = '\\x1b]0;own\\x07\\x1b[2J\\x9b1';
const CONTROL = /[\p{Cc}\p{Cf}]/u;

const packet: HeaderText = { source: '10.244.1.2', destination: '10.244.2.2', text: '10.244.1.2 > 10.244.2.2 icmp' };

describe('a container that names its device to steer the terminal of who looks', () => {
  it('is shown with that name by weft trace, in hops and in the verdict', () => {
    const text = renderTrace({
      ...{ ok: false, from: DEVICE, to: '10.244.2.2', protocol: 'icmp', farHost: DEVICE, copies: 0, agentDrops: [] },
      far: { frames: false, agent: true },
      hops: [{ atUs: 0, host: 'this host', place: 'pod', device: DEVICE, direction: 'out', leg: 'request', packet }],
      verdict: { outcome: 'lost', host: 'this host', hop: `pod ${DEVICE}`, reason: 'unseen', text: `left ${DEVICE}` },
      notes: [`the agent of ${DEVICE} was not asked`],
    });
    assert.doesNotMatch(text.replaceAll('\n', ''), CONTROL);
    assert.match(text, /→ this host pod \\x1b\]0;own\\x07\\x1b\[2J\\x9b1 out$/m);
    assert.equal(text.split(SHOWN).length - 1, 6);
  });

  it('is shown with that name by weft trace --drops', () => {
    const drop = { reason: 'NO_SOCKET', function: 'icmp_rcv', packet };
    const text = renderWatched({ atMs: 1_000, place: 'host', device: DEVICE, ...drop });
    assert.doesNotMatch(text.replaceAll('\n', ''), CONTROL);
    assert.equal(text.split('\n')[0], `00:00:01.000 ${SHOWN} NO_SOCKET in icmp_rcv`);
  });
});
