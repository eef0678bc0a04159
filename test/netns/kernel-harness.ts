import { iproute2Kernel } from '../../src/linux/iproute2.ts';
import { run } from '../../src/linux/run.ts';
import type { KernelHarness } from '../contract/kernel.ts';
import { withNamespace } from './traffic-namespace.ts';
import { eventually } from './waiting.ts';

export interface RealHost extends KernelHarness {
  readonly netns: string;
  /** `ip` in the namespace, by hand. */
  ip(...args: string[]): Promise<string>;
}

/** A host in a network namespace of its own: loopback, and `eth0` (192.168.77.1/24) on a cable that is plugged in. */
export async function openRealHost(): Promise<RealHost> {
  const namespace = await withNamespace();
  const netns = namespace.name;
  const ip = async (...args: string[]): Promise<string> => (await run(['ip', '-n', netns, ...args])).stdout;
  try {
    await run(['ip', '-n', netns, '-batch', '-'], {
      stdin: [
        'link add eth0 type veth peer name plug0',
        'link set plug0 up',
        'link set eth0 up',
        'addr add 192.168.77.1/24 dev eth0',
      ].join('\n'),
    });
  } catch (error) {
    await namespace[Symbol.asyncDispose]();
    throw error;
  }
  return {
    netns,
    ip,
    kernel: iproute2Kernel({ netns, onLost: (text) => void process.stderr.write(`${text}\n`) }),
    addTun: async (name) => void (await ip('tuntap', 'add', 'dev', name, 'mode', 'tun')),
    deleteLink: async (name) => void (await ip('link', 'delete', name)),
    renameLink: async (name, to) => void (await ip('link', 'set', name, 'name', to)),
    setDown: async (name) => void (await ip('link', 'set', name, 'down')),
    setQueue: async (name, packets) => void (await ip('link', 'set', name, 'txqueuelen', String(packets))),
    setMtu: async (name, mtuBytes) => void (await ip('link', 'set', name, 'mtu', String(mtuBytes))),
    addAddress: async (link, cidr) => void (await ip('addr', 'add', cidr, 'dev', link)),
    flushAddresses: async (link) => void (await ip('addr', 'flush', 'dev', link)),
    addRoute: async ({ dst, dev, via, protocol }) => {
      const gateway = via === undefined ? [] : ['via', via];
      await ip('route', 'append', dst, ...gateway, 'dev', dev, 'proto', String(protocol));
    },
    quiet: () =>
      eventually('no tentative address', async () => {
        return (await ip('-6', 'addr', 'show', 'tentative')) === '' ? true : undefined;
      }).then(() => {}),
    deleteRoute: async (dst) => void (await ip('route', 'delete', dst)),
    [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
  };
}
