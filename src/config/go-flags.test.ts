import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  applyEnvironment,
  boolFlag,
  choiceFlag,
  flagUsage,
  intFlag,
  listFlag,
  parseFlags,
  stringFlag,
} from './go-flags.ts';

const TABLE = {
  n: intFlag(5, 'a `minutes` number'),
  b: boolFlag(false, 'bee\nline2'),
  ttt: boolFlag(true, 'on by default'),
  s: stringFlag('', 'str'),
  def: stringFlag('x"y', 'str'),
  zero: intFlag(0, 'zz'),
  list: listFlag('many'),
  q: stringFlag('', 'q'),
};
const DEFAULTS = { n: 5, b: false, ttt: true, s: '', def: 'x"y', zero: 0, list: [], q: '' };

function values(...args: string[]): object {
  const parsed = parseFlags(TABLE, args);
  assert.equal(parsed.kind, 'values', JSON.stringify(parsed));
  return parsed.kind === 'values' ? parsed.values : {};
}

/** Expected results in this file are what Go 1.26's flag package gave for the same table and words. */
describe('Go flags: accepted', () => {
  const cases: [string[], object][] = [
    [[], {}],
    [['-n', '7', '--n=8'], { n: 8 }],
    [['-n=0x10'], { n: 16 }],
    [['-n=1_000'], { n: 1000 }],
    [['-n=010'], { n: 8 }],
    [['-n=0_7'], { n: 7 }],
    [['-n=0x_f'], { n: 15 }],
    [['-n=0o17'], { n: 15 }],
    [['-n=-0b11'], { n: -3 }],
    [['-n=+5'], { n: 5 }],
    [['-n=-0'], { n: 0 }],
    [['-n', '-1'], { n: -1 }],
    [['-s='], { s: '' }],
    [['-s=a=b'], { s: 'a=b' }],
    [['-s', '-b'], { s: '-b' }],
    [['-s', ''], { s: '' }],
    [['-list', 'a', '--list=b,c'], { list: ['a', 'b,c'] }],
    [['-b'], { b: true }],
    [['-b=T', '-ttt=0'], { b: true, ttt: false }],
  ];
  for (const [args, expected] of cases) {
    it(JSON.stringify(args), () => assert.deepEqual(values(...args), { ...DEFAULTS, ...expected }));
  }

  it('stops at the first word that is no flag, and behind --', () => {
    for (const [args, rest] of [
      [
        ['-b', 'false', '-n=3'],
        ['false', '-n=3'],
      ],
      [['--', '-b'], ['-b']],
      [['-'], ['-']],
      [['-b', ''], ['']],
    ] as const) {
      const parsed = parseFlags(TABLE, args);
      assert.deepEqual(parsed.kind === 'values' && parsed.rest, rest);
    }
  });

  it('tells which flags were given, at their default or not', () => {
    const parsed = parseFlags(TABLE, ['-n=5', '-b']);
    assert.deepEqual(parsed.kind === 'values' && [...parsed.given], ['n', 'b']);
  });

  it('asks for help', () => {
    for (const word of ['-h', '--help', '-help=3']) assert.equal(parseFlags(TABLE, [word]).kind, 'help');
  });
});

describe('Go flags: refused', () => {
  const cases: [string[], string][] = [
    [['-n=x'], 'invalid value "x" for flag -n: parse error'],
    [['-n=08'], 'invalid value "08" for flag -n: parse error'],
    [['-n= 5'], 'invalid value " 5" for flag -n: parse error'],
    [['-n='], 'invalid value "" for flag -n: parse error'],
    [['-n=_1'], 'invalid value "_1" for flag -n: parse error'],
    [['-n=1__0'], 'invalid value "1__0" for flag -n: parse error'],
    [['-n=1_'], 'invalid value "1_" for flag -n: parse error'],
    [['-n=0x'], 'invalid value "0x" for flag -n: parse error'],
    [['-n=99999999999999999999'], 'invalid value "99999999999999999999" for flag -n: value out of range'],
    [['-n'], 'flag needs an argument: -n'],
    [['-list'], 'flag needs an argument: -list'],
    [['-b=maybe'], 'invalid boolean value "maybe" for -b: parse error'],
    [['-b='], 'invalid boolean value "" for -b: parse error'],
    [['---b'], 'bad flag syntax: ---b'],
    [['-=b'], 'bad flag syntax: -=b'],
    [['-nope=1'], 'flag provided but not defined: -nope'],
    [['-toString'], 'flag provided but not defined: -toString'],
    [['-__proto__=1'], 'flag provided but not defined: -__proto__'],
  ];
  for (const [args, message] of cases) {
    it(JSON.stringify(args), () => assert.deepEqual(parseFlags(TABLE, args), { kind: 'error', message }));
  }
});

describe('Go flags: usage', () => {
  it('has the form of PrintDefaults', () => {
    assert.equal(
      flagUsage(TABLE),
      [
        '  -b\tbee',
        '    \tline2',
        '  -def string',
        '    \tstr (default "x\\"y")',
        '  -list value',
        '    \tmany',
        '  -n minutes',
        '    \ta minutes number (default 5)',
        '  -q string',
        '    \tq',
        '  -s string',
        '    \tstr',
        '  -ttt',
        '    \ton by default (default true)',
        '  -zero int',
        '    \tzz',
        '',
      ].join('\n'),
    );
  });

  it('names the choices', () => {
    assert.equal(flagUsage({ form: choiceFlag(['a', 'b'], 'a', 'which') }), '  -form a|b\n    \twhich (default a)\n');
    assert.deepEqual(parseFlags({ form: choiceFlag(['a', 'b', 'c'], 'a', 'which') }, ['-form=d']), {
      kind: 'error',
      message: 'invalid value "d" for flag -form: must be a, b or c',
    });
  });
});

describe('Go flags: environment', () => {
  const table = { 'etcd-prefix': stringFlag('/p', ''), list: listFlag(''), n: intFlag(7, ''), ok: boolFlag(true, '') };
  const noArguments = parseFlags(table, []);
  assert.ok(noArguments.kind === 'values');

  it('sets what the command line left out, whole values for repeatable flags', () => {
    const env = { T_ETCD_PREFIX: '/q', T_LIST: 'a,b', T_N: '9', T_OK: 'false', N: '1' };
    const settings = applyEnvironment(table, 'T', env, noArguments);
    assert.deepEqual({ ...settings.values }, { 'etcd-prefix': '/q', list: ['a,b'], n: 9, ok: false });
    assert.deepEqual(settings.problems, []);
  });

  it('lets the command line win, even when it repeats the default', () => {
    const parsed = parseFlags(table, ['-n=7', '-list=x']);
    assert.ok(parsed.kind === 'values');
    const settings = applyEnvironment(table, 'T', { T_N: '9', T_LIST: 'y' }, parsed);
    assert.equal(settings.values.n, 7);
    assert.deepEqual(settings.values.list, ['x']);
  });

  it('counts an empty variable as unset, reports a bad one and leaves the default', () => {
    const settings = applyEnvironment(table, 'T', { T_N: 'abc', T_ETCD_PREFIX: '', T_OK: '2' }, noArguments);
    assert.deepEqual({ ...settings.values }, { 'etcd-prefix': '/p', list: [], n: 7, ok: true });
    assert.deepEqual(settings.problems, [
      { variable: 'T_N', message: 'invalid value "abc" for flag -n: parse error' },
      { variable: 'T_OK', message: 'invalid boolean value "2" for -ok: parse error' },
    ]);
  });
});

describe('Go flags: properties', () => {
  it('what is written as flags is read back, in either form', () => {
    const given = fc.record({
      n: fc.maxSafeInteger(),
      b: fc.boolean(),
      s: fc.string(),
      list: fc.array(fc.string(), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(given, fc.boolean(), fc.constantFrom('-', '--'), ({ n, b, s, list }, joined, dashes) => {
        const words: string[] = [`${dashes}b=${b}`];
        for (const [name, value] of [['n', String(n)], ['s', s], ...list.map((item) => ['list', item])]) {
          if (joined) words.push(`${dashes}${name}=${value}`);
          else words.push(`${dashes}${name}`, String(value));
        }
        assert.deepEqual(values(...words), { ...DEFAULTS, n: n + 0, b, s, list });
      }),
    );
  });

  it('never throws', () => {
    const word = fc.oneof(fc.string(), fc.constantFrom('-n', '-b', '-s', '--list', '--', '-n=1', '-b=x', '-='));
    fc.assert(fc.property(fc.array(word), (words) => void parseFlags(TABLE, words)));
  });
});
