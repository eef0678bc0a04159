import { F_SETFD, FD_CLOEXEC } from './constants.ts';
import { sendDescriptors } from './descriptor-message.ts';
import { errnoName, fcntl } from './ffi.ts';
import type { PacketDescriptors } from './packet-descriptors.ts';
import { sockaddrUn } from './systemd-notify.ts';

/** SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST = 3;
/** A name of the store, sd_pid_notify_with_fds(3). */
const NAME = 'packets';

/**
 * systemd keeps TUN device and socket from one process of the service to the next (FileDescriptorStoreMax=), and with them the packets
 * that arrive in between. Takes over what it has, and gives it what is in use from now on. It drops them when the service is stopped.
 *
 * @param environment NOTIFY_SOCKET, LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES; the last three are taken out, for they are not meant
 *   for programs that the agent starts.
 */
export function keepInServiceManager(
  descriptors: PacketDescriptors,
  environment: Record<string, string | undefined>,
  onNotice: (text: string) => void,
): void {
  descriptors.adopt(takeListenFds(environment));
  const target = environment.NOTIFY_SOCKET ?? '';
  // One that cannot be used is named by the notifier.
  const to = target === '' ? undefined : sockaddrUn(target);
  if (to === undefined) return;
  descriptors.onLent = (fds) => {
    // Without FDPOLL=0 systemd lets go of what has an error to report.
    const sent = [
      sendDescriptors(to, `FDSTOREREMOVE=1\nFDNAME=${NAME}`, []),
      sendDescriptors(to, `FDSTORE=1\nFDNAME=${NAME}\nFDPOLL=0`, fds),
    ];
    const failed = sent.find((result) => result < 0);
    if (failed !== undefined) onNotice(`systemd cannot keep the TUN device for the next start: ${errnoName(failed)}`);
  };
}

/** Those of {@link NAME} that systemd has passed to this process, sd_listen_fds(3). They end with an `exec` from now on. */
export function takeListenFds(environment: Record<string, string | undefined>): number[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = environment;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete environment[name];
  if (Number(pid) !== process.pid || !/^\d{1,3}$/.test(count)) return [];
  const all = Array.from({ length: Number(count) }, (_, index) => FIRST + index);
  for (const fd of all) fcntl(fd, F_SETFD, FD_CLOEXEC);
  const nameOf = names.split(':');
  return all.filter((_, index) => nameOf[index] === NAME);
}
