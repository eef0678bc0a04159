import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { it } from 'node:test';
import { compileFunction } from 'node:vm';
import { bundle } from '../scripts/packaging/bundle.ts';

it('all programs fit into one CommonJS file, without an await outside functions', async () => {
  const { program, worker, licences } = await bundle(AbortSignal.timeout(60_000));
  // esbuild has refused what does not fit; these are looked up while it runs, where nothing would be found.
  for (const text of [program, worker]) assert.doesNotMatch(text, /\bimport\.meta\b/);
  assert.match(licences, /^==== koffi@/m);
  assert.match(licences, /^==== @kubernetes\/client-node@/m);
});

it('the text of the programs, which each of their processes has in memory, is without what only some agents load', async () => {
  const { program, parts, packages } = await bundle(AbortSignal.timeout(60_000));
  assert.ok(program.length < 2_500_000, `${program.length} characters`);
  const required = createRequire(import.meta.url);
  const load = (name: string): Record<string, Record<string, unknown>> => {
    const part = { exports: {} };
    compileFunction(parts.get(name)!, ['module', 'exports', 'require'])(part, part.exports, required);
    return part.exports;
  };
  const { KubeConfig } = load('kube-client')['@kubernetes/client-node/dist/config.js'] as {
    KubeConfig: new () => { loadFromDefault(): void };
  };
  assert.equal(typeof new KubeConfig().loadFromDefault, 'function');
  const grpc = load('grpc');
  assert.equal(typeof grpc['@grpc/grpc-js']!.Client, 'function');
  assert.equal(typeof grpc['@grpc/proto-loader']!.fromJSON, 'function');
  for (const text of ['cacheInterceptorV', 'grpc.default_authority']) {
    assert.ok(!program.includes(text) && [...parts.values()].some((part) => part.includes(text)), text);
  }
  for (const name of ['@grpc/grpc-js', '@kubernetes/client-node', 'undici', 'koffi'])
    assert.ok(
      packages.some((folder) => folder.endsWith(name)),
      name,
    );
});
