import { Command } from 'commander';
import type { Answer, LeaseEntry } from '../../api/schema.ts';
import { shortSpan } from '../../time-span.ts';
import { wrapped } from '../../wrapped.ts';
import { listCommand } from './lists.ts';
import { type Column, table } from './table.ts';

/** `weft leases`: who has which subnet, as the agent knows it, and which entries it does not believe. */
export function leasesCommand(): Command {
  return listCommand(
    new Command('leases')
      .summary('list which host has which subnet')
      .description(
        'List which host has which subnet, and the entries of the store that the agent rejects, with the reason.',
      ),
    {
      ask: (client, signal) => client.get('/leases', signal),
      render: renderLeases,
    },
  );
}

/** A line a lease, and why one is refused below them. Pure. */
export function renderLeases({ atMs, leases }: Answer<'/leases'>, columns: number): string {
  const list: readonly Column<LeaseEntry>[] = [
    { title: 'SUBNET', text: ({ subnets }) => subnets.join(' '), minWidth: 18 },
    { title: 'ADDRESS', text: ({ publicAddresses }) => publicAddresses.join(' ') || '-', minWidth: 15 },
    { title: 'NODE', text: ({ holder }) => holder ?? '-', minWidth: 10 },
    { title: 'BACKEND', text: ({ backendType }) => backendType },
    { title: 'STATUS', text: ({ status }) => status },
    {
      title: 'ENDS IN',
      right: true,
      text: ({ expiresAtMs }) => (expiresAtMs === undefined ? 'never' : shortSpan(expiresAtMs - atMs)),
    },
  ];
  if (leases.length === 0) return 'No leases.\n';
  const reasons = leases.flatMap(({ reason }) => (reason === undefined ? [] : wrapped(reason, '  ', columns)));
  return `${table(list, leases, columns)}${reasons.length === 0 ? '' : `\n${reasons.join('\n')}\n`}`;
}
