import type { Random } from './random.ts';

/** One entry of a store, whoever wrote it: well-formed, damaged, or made to hurt. */
export type StoreEntry =
  /** `key` is what stands below `subnets/` in etcd, or the key of a row. */
  | { readonly store: 'etcd' | 'local'; readonly key: string; readonly value: string }
  /** `node` is a Node object. */
  | { readonly store: 'kube'; readonly node: unknown };

const PREFIX = 'flannel.alpha.coreos.com/';
const ODD_TEXT = [
  '',
  ' ',
  '\0',
  '\n',
  '\u001b[2J',
  '\ud800',
  'ſ',
  '\u212a',
  '__proto__',
  'constructor',
  '"',
  '\\',
  '\u2028',
];
const ODD_NUMBERS = ['0', '-0', '1e999', '-1e-999', '24.0', '9007199254740993', '1E+2', '01', '.5', '-', '0x10', 'NaN'];
const ADDRESSES = [
  '192.168.77.2',
  '10.244.3.1',
  '127.0.0.1',
  '0.0.0.0',
  '224.0.0.1',
  '255.255.255.255',
  '1.2.3',
  '01.2.3.4',
  '::',
  '::1',
  'fd00::1',
  'ff02::1',
  '::ffff:1.2.3.4',
];
const FIELDS = [
  'PublicIP',
  'PublicIPv6',
  'BackendType',
  'BackendData',
  'BackendV6Data',
  'publicip',
  'BACKENDDATA',
  '__proto__',
  'VNI',
  'VtepMAC',
];
const ANNOTATIONS = [
  'kube-subnet-manager',
  'backend-type',
  'backend-data',
  'backend-v6-data',
  'public-ip',
  'public-ipv6',
  'public-ip-overwrite',
  'node-public-ip',
];

export function storeEntry(random: Random): StoreEntry {
  const store = random.pick(['etcd', 'local', 'kube'] as const);
  if (store === 'kube') return { store, node: node(random) };
  return { store, key: key(random), value: damaged(random, value(random)) };
}

function key(random: Random): string {
  const v4 = `${octet(random)}.${octet(random)}.${octet(random)}.${random.oneIn(3) ? octet(random) : 0}-${length(random)}`;
  const v6 = `fd${random.word().toString(16)}::-${length(random)}`;
  if (random.oneIn(2_000)) return random.pick(['1', '1.', '-', '&', '1.1.1.1-', ':']).repeat(20_000);
  if (random.oneIn(2)) return `10.244.${random.below(256)}.0-24`;
  return damaged(random, random.pick([v4, v4, `${v4}&${v6}`, v6, '0.0.0.0-0&::-0', `x/${v4}`]));
}

function octet(random: Random): string {
  return random.oneIn(40) ? random.pick(['256', '00', '999999999999', '-1', '']) : String(random.below(256));
}

function length(random: Random): string {
  return random.oneIn(20)
    ? random.pick(['33', '129', '000024', '-1', '1e1', '9'.repeat(30)])
    : String(random.below(65));
}

/** Text of an object with flannel's fields, in any order, some of them twice. */
function value(random: Random): string {
  const members: string[] = random.oneIn(4) ? [] : [`"PublicIP":"10.1.${random.below(256)}.7"`];
  for (let left = random.below(5); left > 0; left--) {
    const name = random.oneIn(20) ? random.pick(ODD_TEXT) : random.pick(FIELDS);
    members.push(`${JSON.stringify(name)}:${memberOf(random, name)}`);
  }
  return `{${members.join(',')}}`;
}

function field(random: Random): string {
  return random.oneIn(20) ? random.pick(ODD_TEXT) : random.pick(FIELDS);
}

/** Mostly of the kind that the field has. */
function memberOf(random: Random, name: string): string {
  if (random.oneIn(6)) return member(random);
  const folded = name.toLowerCase();
  if (folded.includes('data')) return json(random);
  if (folded === 'publicipv6') return random.pick(['null', '"fd00::1"', '"::"']);
  return JSON.stringify(folded === 'publicip' ? random.pick(ADDRESSES.slice(0, 6)) : 'vxlan');
}

function member(random: Random): string {
  switch (random.below(8)) {
    case 0:
    case 1:
    case 2:
      return JSON.stringify(random.pick(ADDRESSES));
    case 3:
      return JSON.stringify(random.pick(ODD_TEXT));
    case 4:
      return random.pick(ODD_NUMBERS);
    case 5:
      return random.pick(['null', 'true', 'false']);
    default:
      return json(random);
  }
}

/** Text of a JSON value; now and then one that is deep, wide or long. */
function json(random: Random): string {
  if (random.oneIn(500)) {
    const deep = 1 + random.below(4_000);
    return random.pick([
      () => `${'['.repeat(deep)}${']'.repeat(deep)}`,
      () => `${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`,
      () => `[${'0,'.repeat(deep)}0]`,
      () => `{${Array.from({ length: deep }, (_, i) => `"k${i}":${i}`).join(',')}}`,
      () => JSON.stringify('x'.repeat(deep * 20)),
    ])();
  }
  return nested(random, random.below(4));
}

function nested(random: Random, depth: number): string {
  if (depth === 0) return random.oneIn(2) ? random.pick(ODD_NUMBERS) : JSON.stringify(random.pick(ODD_TEXT));
  const items = Array.from({ length: random.below(4) }, () => nested(random, depth - 1));
  return random.oneIn(2)
    ? `[${items.join(',')}]`
    : `{${items.map((item) => `${JSON.stringify(field(random))}:${item}`).join(',')}}`;
}

/** Mostly as it is; else cut, with something put in, or with a character changed. */
function damaged(random: Random, text: string): string {
  if (!random.oneIn(6)) return text;
  const at = random.below(text.length + 1);
  switch (random.below(3)) {
    case 0:
      return text.slice(0, at);
    case 1:
      return text.slice(0, at) + random.pick([...ODD_TEXT, '{', '}', '[', ']', ',', ':', '\\u']) + text.slice(at);
    default:
      return text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1);
  }
}

function node(random: Random): unknown {
  const annotations: Record<string, unknown> = { [`${PREFIX}kube-subnet-manager`]: random.oneIn(10) ? 'TRUE' : 'true' };
  for (const name of ANNOTATIONS) if (!random.oneIn(3)) annotations[PREFIX + name] = annotation(random, name);
  const cidrs = Array.from({ length: random.oneIn(6) ? random.below(4) : 1 }, () => cidr(random));
  const object = {
    metadata: {
      name: `node-${random.below(50)}`,
      uid: 'u',
      creationTimestamp: random.pick(['2026-01-02T03:04:05Z', 'then', 7]),
      annotations,
    },
    spec: random.oneIn(20) ? { podCIDR: cidr(random) } : { podCIDRs: cidrs },
    status: { addresses: [{ type: 'InternalIP', address: random.pick(ADDRESSES) }] },
  };
  if (!random.oneIn(30)) return object;
  return random.pick<unknown>([
    null,
    [],
    'x',
    { ...object, metadata: null },
    { ...object, spec: [] },
    { ...object, status: { addresses: [null] } },
  ]);
}

function annotation(random: Random, name: string): unknown {
  if (random.oneIn(200)) return random.pick<unknown>([null, 7, [], {}]);
  if (name.includes('data')) return damaged(random, random.oneIn(4) ? 'null' : json(random));
  if (name.includes('ip')) return damaged(random, random.pick(ADDRESSES));
  if (name === 'kube-subnet-manager') return random.oneIn(10) ? 'false' : 'true';
  return random.oneIn(10) ? random.pick(ODD_TEXT) : random.pick(['', 'vxlan', 'host-gw']);
}

function cidr(random: Random): unknown {
  if (random.oneIn(50)) return random.pick<unknown>([null, 7, ['10.244.1.0/24'], '0.0.0.0/0', '::/0', '10.244.1.0']);
  return random.oneIn(6)
    ? `fd10:244::${random.below(99)}:0/${112 + random.below(17)}`
    : `10.244.${random.below(256)}.0/${16 + random.below(17)}`;
}
