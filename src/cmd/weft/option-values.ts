/** What options of several commands take, for commander. */
import { InvalidArgumentError } from 'commander';
import { type IpAddr, parseAddr } from '../../ip/address.ts';

/** @throws InvalidArgumentError unless it is more than 0 and less than 1,000,000; to the millisecond. */
export function secondsOf(text: string): number {
  const seconds = /^\d{1,6}(?:\.\d{1,3})?$/.test(text) ? Number(text) : 0;
  if (seconds <= 0) throw new InvalidArgumentError('want seconds, more than 0');
  return seconds;
}

/** @throws InvalidArgumentError unless it is 1 to 65535. */
export function portNumber(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw new InvalidArgumentError('want a port, 1 to 65535');
  return port;
}

/** @throws InvalidArgumentError unless it is an address. */
export function addressOf(text: string): IpAddr {
  const address = parseAddr(text);
  if (address === undefined) throw new InvalidArgumentError('want an IP address');
  return address;
}
