import { formatPrefix, isIpv4, parseAddr, parsePrefix } from '../../src/ip/address.ts';
import { type KernelHarness, kernelContract } from '../contract/kernel.ts';
import { FakeKernel } from './fake-kernel.ts';

kernelContract('fake', async (): Promise<KernelHarness> => {
  const kernel = new FakeKernel();
  const addAddress = async (link: string, cidr: string): Promise<void> => {
    const [text = '', length] = cidr.split('/');
    kernel.byHand({
      type: 'address-add',
      address: { link, addr: parseAddr(text)!, prefixLength: Number(length), scope: 'global', prefixRoute: true },
    });
  };
  kernel.addLink({ name: 'eth0', kind: 'other' });
  await addAddress('eth0', '192.168.77.1/24');
  return {
    kernel,
    addTun: async (name) => kernel.addLink({ name, kind: 'tun', up: false }),
    deleteLink: async (name) => kernel.removeLink(name),
    setDown: async (name) => kernel.setLink(name, { up: false }),
    setQueue: async (name, queuePackets) => kernel.setLink(name, { queuePackets }),
    setMtu: async (name, mtuBytes) => kernel.setLink(name, { mtuBytes }),
    addAddress,
    renameLink: async (name, to) => void kernel.byHand({ type: 'link-rename', name, to }),
    flushAddresses: async (link) => kernel.flushAddresses(link),
    addRoute: async ({ dst, dev, via, protocol }) => {
      const prefix = parsePrefix(dst)!;
      kernel.addForeignRoute({
        type: 'unicast',
        dst: prefix,
        metric: isIpv4(prefix.addr) ? 0 : 1024,
        dev,
        via: via === undefined ? undefined : parseAddr(via),
        onlink: false,
        scope: isIpv4(prefix.addr) && via === undefined ? 'link' : 'global',
        protocol,
        elaborate: false,
      });
    },
    quiet: async () => {},
    deleteRoute: async (dst) => kernel.deleteRoutes((route) => formatPrefix(route.dst) === dst),
    [Symbol.asyncDispose]: async () => {},
  };
});
