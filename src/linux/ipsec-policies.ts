import type { Op } from '../desired/op.ts';
import {
  type ActualIpsecPolicy,
  IPSEC_REQID,
  type IpsecPolicy,
  POLICY_PRIORITIES,
  type PolicyDirection,
  type PolicyVerdict,
} from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { formatAddr, formatPrefix, parseAddr, parsePrefix } from '../ip/address.ts';
import { run } from './run.ts';
import { readXfrmPolicies } from './xfrm.ts';

/** IPsec policies by `ip xfrm`, which speaks no JSON. */

const TIMEOUT_MS = 30_000;
const DIRECTIONS: readonly string[] = ['in', 'out', 'fwd'];

export interface IpsecPoliciesOptions {
  readonly netns: string | undefined;
  /** Without it, a kernel that does not say is taken for one without policies. */
  readonly areWanted: boolean;
  readonly signal: AbortSignal;
}

/** All of the host that look at two prefixes and no more. @throws WeftError WEFT_KERNEL_STATE, WEFT_COMMAND_…. */
export async function readIpsecPolicies(options: IpsecPoliciesOptions): Promise<readonly ActualIpsecPolicy[]> {
  const { netns, areWanted, signal } = options;
  // Of this process's namespace it is known without a program whether there are any.
  const found = netns === undefined ? readXfrmPolicies() : undefined;
  if (typeof found === 'object' && found.count === 0) return [];
  const argv = ['ip', '-o', 'xfrm', 'policy', 'list', 'nosock'];
  const { stdout, stderr, exitCode } = await run(argv, { netns, signal, timeoutMs: TIMEOUT_MS, okExitCodes: 'any' });
  if (exitCode === 0) return parseIpsecPolicies(stdout);
  if (!areWanted) return [];
  throw new WeftError('WEFT_KERNEL_STATE', `reading the IPsec policies with ${argv.join(' ')}: ${stderr.trim()}`, {
    hint: 'The agent retries. If the error persists, run the command by hand.',
  });
}

/** One on a line, in words; exported for its test. */
export function parseIpsecPolicies(text: string): ActualIpsecPolicy[] {
  return text.split('\n').flatMap(policyOf);
}

/** `src 10.244.1.0/24 dst 10.244.2.0/24 \	dir out priority 0 ptype main \	tmpl src … dst …\		proto esp reqid 11 mode tunnel\` */
function policyOf(line: string): ActualIpsecPolicy[] {
  const [selector = '', properties = '', ...templates] = line.split('\\').map((part) => part.trim());
  const [, srcText = '', dstText = ''] = /^src (\S+) dst (\S+)$/.exec(selector) ?? [];
  const [src, dst] = [parsePrefix(srcText), parsePrefix(dstText)];
  const [, direction = '', action, priority] =
    /^dir (\S+)(?: action (\S+))?(?: index \d+)? priority (\d+)(?: ptype main)?$/.exec(properties) ?? [];
  const more = templates.filter((part) => part !== '').join(' ');
  if (src === undefined || dst === undefined || !DIRECTIONS.includes(direction)) return [];
  // A mark, an interface of xfrm, a security context.
  if (more !== '' && !more.startsWith('tmpl ')) return [];
  const verdict = verdictOf(action, more);
  return [{ direction: direction as PolicyDirection, src, dst, priority: Number(priority), verdict }];
}

function verdictOf(action: string | undefined, templates: string): ActualIpsecPolicy['verdict'] {
  if (templates === '') return { kind: action === 'block' ? 'block' : 'allow' };
  const [, fromText = '', toText = '', reqid] =
    /^tmpl src (\S+) dst (\S+) proto esp reqid (\d+) mode tunnel$/.exec(templates) ?? [];
  const [from, to] = [parseAddr(fromText), parseAddr(toText)];
  if (action !== undefined || from === undefined || to === undefined || Number(reqid) !== IPSEC_REQID)
    return { kind: 'other' };
  return { kind: 'tunnel', from, to };
}

/** The line of `ip -batch` for an operation. */
export function policyCommandOf(op: Extract<Op, { type: 'policy-set' | 'policy-delete' }>): string {
  const { direction, src, dst } = op.policy;
  const key = `src ${formatPrefix(src)} dst ${formatPrefix(dst)} dir ${direction}`;
  if (op.type === 'policy-delete') return `xfrm policy delete ${key}`;
  const { verdict } = op.policy satisfies IpsecPolicy;
  return `xfrm policy update ${key} priority ${POLICY_PRIORITIES[verdict.kind]}${wordsOf(verdict)}`;
}

function wordsOf(verdict: PolicyVerdict): string {
  if (verdict.kind !== 'tunnel') return ` action ${verdict.kind}`;
  return ` tmpl src ${formatAddr(verdict.from)} dst ${formatAddr(verdict.to)} proto esp reqid ${IPSEC_REQID} mode tunnel`;
}
