/** What is wrong with an agent in a container that has a network of its own, and what to do about it. */
export const OWN_NETWORK = {
  found:
    'This container has its own network (its hostname is the container ID). The overlay works in this container only, not on the host and not in other containers',
  remedy: 'Start the container with --network host.',
} as const;

/** What {@link hasOwnNetwork} is to be given. */
export const OWN_NETWORK_FILES = { hostname: '/proc/sys/kernel/hostname', mountinfo: '/proc/self/mountinfo' } as const;

/**
 * Whether this process is in a container that a container runtime has given a network of its own. Devices do not tell: the hosts of kind
 * have a veth, too. But Docker, podman and nerdctl call such a container by the first twelve digits of its ID, and one in the network of
 * its host by the host's name. The ID is in the paths of the files that they mount (/etc/hostname, /etc/hosts). With `--hostname` it
 * cannot be known. Pure.
 */
export function hasOwnNetwork(hostname: string, mountinfo: string): boolean {
  const name = hostname.trim();
  return /^[0-9a-f]{12}$/.test(name) && new RegExp(`/${name}[0-9a-f]{52}/`).test(mountinfo);
}
