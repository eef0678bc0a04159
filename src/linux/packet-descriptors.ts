import { describeError } from '../errors.ts';
import type { IpAddr } from '../ip/address.ts';
import { close } from './ffi.ts';
import { adoptTunDevice, type TunDevice } from './tun-device.ts';
import { adoptUdpSocket, type UdpSocket } from './udp-socket.ts';

/**
 * The TUN devices and underlay sockets of this process, which outlive what uses them: the queue behind a descriptor holds packets as
 * long as some process has it, so nothing is lost where it goes on to the next user, in this process or another.
 */
export class PacketDescriptors implements Disposable {
  /** Told of the descriptors in use whenever there are others. */
  onLent: (fds: readonly number[]) => void = () => {};
  readonly #onNotice: (text: string) => void;
  #tuns: TunDevice[] = [];
  #sockets: UdpSocket[] = [];
  readonly #lent = new Set<readonly [TunDevice, UdpSocket]>();

  constructor(onNotice: (text: string) => void) {
    this.#onNotice = onNotice;
  }

  /** Takes over what another process has opened; closes what is of no use. */
  adopt(fds: readonly number[]): void {
    for (const fd of fds) {
      try {
        const tun = adoptTunDevice(fd);
        const socket = tun === undefined ? adoptUdpSocket(fd) : undefined;
        if (tun !== undefined) this.#tuns.push(tun);
        else if (socket !== undefined) this.#sockets.push(socket);
        else close(fd);
      } catch (error) {
        this.#onNotice(`A descriptor from the previous agent is unusable: ${describeError(error)}`);
        close(fd);
      }
    }
  }

  /** What is there for that device and not in use; the caller's from now on. */
  takeTun(name: string): TunDevice | undefined {
    const found = this.#tuns.find((tun) => tun.name === name);
    this.#tuns = this.#tuns.filter((tun) => tun !== found);
    return found;
  }

  /** The same for the socket bound to that address and port. One for that port at another address, which the host had before, is closed. */
  takeSocket(address: IpAddr, port: number): UdpSocket | undefined {
    const fitting = this.#sockets.filter((socket) => socket.port === port);
    const found = fitting.find((socket) => socket.address === address);
    this.#sockets = this.#sockets.filter((socket) => !fitting.includes(socket));
    for (const socket of fitting) if (socket !== found) socket[Symbol.dispose]();
    return found;
  }

  /** These are in use until disposed; then they stay here for whoever takes them next, if their device is still there. */
  lend(tun: TunDevice, socket: UdpSocket): Disposable {
    const pair = [tun, socket] as const;
    this.#lent.add(pair);
    this.onLent(this.lent);
    return {
      [Symbol.dispose]: () => {
        if (this.#lent.delete(pair)) this.adopt([tun.fd, socket.fd]);
      },
    };
  }

  /** In use now. */
  get lent(): readonly number[] {
    return [...this.#lent].flatMap(([tun, socket]) => [tun.fd, socket.fd]);
  }

  /** Closes what nobody uses. */
  [Symbol.dispose](): void {
    for (const each of [...this.#tuns, ...this.#sockets]) each[Symbol.dispose]();
    this.#tuns = [];
    this.#sockets = [];
  }
}
