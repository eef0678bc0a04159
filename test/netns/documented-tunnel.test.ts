import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { Topology } from '../../src/lab/topology.ts';
import { sectionOf, shellBlocks, shellCommands } from '../markdown.ts';
import { LineFeed } from './waiting.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

it('two hosts without a store: the commands of docs/INSTALL.md, and one reaches the other', async () => {
  const section = sectionOf(readFileSync(`${ROOT}/docs/INSTALL.md`, 'utf8'), '## Two hosts without a store');
  const commands = shellCommands(shellBlocks(section)[0]!);
  assert.equal(commands.length, 2);
  const [, ping] = /`(ping [\d.]+)` works from the first host/.exec(section) ?? [];
  assert.ok(ping !== undefined);
  await using topology = await Topology.create({ hosts: 2, containersPerHost: 0, purpose: 'test' });
  await Promise.all(
    commands.map(async (command, index) => {
      const host = topology.hosts[index]!;
      // The addresses of the document are those of a lab.
      assert.ok(command.includes(`--listen ${formatIpv4(host.address)}:`), command);
      const child = await topology.start(host, ['sh', '-ec', `cd '${ROOT}'; exec ${command}`]);
      await new LineFeed(child.stdout!)
        .find((line) => line === 'ready')
        .catch((error: unknown) => {
          throw new Error(child.tail(), { cause: error });
        });
    }),
  );
  const [program, address] = ping.split(' ');
  const { stdout } = await topology.exec(topology.hosts[0]!, [program!, '-c', '3', '-W', '5', address!]);
  assert.match(stdout, / 0% packet loss/);
});
