import { tunRemedy } from '../config/tun-remedy.ts';
import { type Check, fail, ok, warn } from './check.ts';
import { hasForwarder, readBackend } from './facts.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';

const TUN = '/dev/net/tun';

/** What the agent needs of its surroundings, and its forwarder where the backend has one. They are those of this process: run it where the agent runs. */
export function tunChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  const forwards = async (signal: AbortSignal): Promise<boolean> =>
    hasForwarder(await readBackend(host, paths, signal));
  return [
    {
      name: 'tun-device',
      looksAt: `${TUN} can be opened`,
      run: async (signal) => {
        if (!(await forwards(signal))) return ok('not needed by this backend');
        const error = await host.openError(TUN);
        if (error === undefined) return ok('yes');
        const obstacle = error === 'EPERM' || error === 'EACCES' ? 'device-denied' : 'missing';
        return fail(`open ${TUN}: ${error}`, tunRemedy(obstacle, host.inPod));
      },
    },
    {
      name: 'cap-net-admin',
      looksAt: 'the capability to create devices, routes and rules',
      run: async () =>
        host.hasCapability('CAP_NET_ADMIN')
          ? ok('CAP_NET_ADMIN is present')
          : fail('CAP_NET_ADMIN is missing', tunRemedy('capability', host.inPod)),
    },
    {
      name: 'cap-net-raw',
      looksAt: 'the capability to tell senders why a packet did not arrive',
      run: async (signal) => {
        if (host.hasCapability('CAP_NET_RAW')) return ok('CAP_NET_RAW is present');
        if (!(await forwards(signal))) return ok('not needed: with this backend the kernel does it');
        return warn(
          'CAP_NET_RAW is missing: senders get no ICMP errors',
          'Add NET_RAW to securityContext.capabilities.add of the container, or run as root.',
        );
      },
    },
  ];
}

/**
 * Whether this process could have the fast path. @param need `required`: it fails where it could not; `optional`: nothing is
 * wrong then.
 */
export function fastPathCheck(host: DoctorHost, need: 'optional' | 'required'): Check {
  return {
    name: 'fast-path',
    looksAt: 'the kernel and the container runtime allow the fast path',
    run: async () => {
      const obstacle = host.fastPathObstacle();
      if (obstacle === undefined) return ok('yes');
      if (need === 'optional')
        return ok(`not available to this process, so all packets pass through the forwarder: ${obstacle}`);
      return fail(
        obstacle,
        'Do not add the capability BPF to the agents of this node until this is fixed. See docs/INSTALL.md ("The fast path").',
      );
    },
  };
}
