import { WeftError } from '../errors.ts';
import { formatAddr } from '../ip/address.ts';
import { FAMILIES, type PerFamily } from '../ip/family.ts';
import { addressTexts } from './host-network.ts';
import type { ChosenInterface, InterfaceChoice, NoInterface } from './interface-choice.ts';

/** That none was found, as an error that lists every interface and why it was not taken. */
export function interfaceNotFound(choice: NoInterface): WeftError {
  const tried = choice.failures.map(({ what, error }) => `\n  tried ${what}: ${error}`);
  const candidates = choice.rejected.map(
    ({ name, addresses, why }) => `\n  ${name} (${addresses.join(', ') || 'no address'}): ${why}`,
  );
  return new WeftError('WEFT_INTERFACE_NOT_FOUND', `${choice.reason}${tried.join('')}${candidates.join('')}`, {
    hint: 'Name the interface that leads to the other nodes with --iface, or add a default route. Without --iface, --public-ip must be an address of an interface.',
  });
}

/** Flannel's. */
const ADDRESS_WORDS: PerFamily<string> = { ipv4: 'address', ipv6: 'v6 address' };

/** The lines that flannel logs about its choice. */
export function choiceLogLines(choice: ChosenInterface): string[] {
  const { name } = choice.interface;
  const own = FAMILIES.flatMap(({ key }) => {
    const address = choice.addresses[key];
    return address === undefined
      ? []
      : `Using interface with name ${name} and ${ADDRESS_WORDS[key]} ${formatAddr(address)}`;
  });
  const published = FAMILIES.flatMap(({ key }) => {
    const address = choice.publicAddresses[key];
    if (address === undefined) return [];
    const text = formatAddr(address);
    return address === choice.addresses[key]
      ? `Defaulting external ${ADDRESS_WORDS[key]} to interface address (${text})`
      : `Using ${text} as external address`;
  });
  return [...(choice.byDefault ? ['Determining IP address of default interface'] : []), ...own, ...published];
}

/** The table of --explain-iface: every interface, its addresses, chosen or why not. */
export function explainChoice(choice: InterfaceChoice): string {
  const rows = choice.rejected.map(({ name, addresses, why }) => ['', name, addresses.join(', ') || '-', why]);
  if (choice.found) {
    const { interface: chosen, why } = choice;
    rows.unshift(['*', chosen.name, addressTexts(chosen).join(', ') || '-', `chosen: ${why}`]);
  }
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  const tried = choice.failures.map(({ what, error }) => `Could not find valid interface matching ${what}: ${error}`);
  return [...tried, ...(choice.found ? [] : [choice.reason]), ...lines].join('\n');
}
