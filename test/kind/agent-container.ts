import type { DockerHost } from '../e2e/docker/docker-host.ts';
import { eventually } from '../netns/waiting.ts';

/**
 * The log of an agent that `docker run` starts from an image, as soon as something in it fits; the container is removed then.
 *
 * @param options of `docker run`. @param flags of the agent.
 */
export async function logOfAgent(
  docker: DockerHost,
  image: string,
  options: readonly string[],
  flags: readonly string[],
  fits: RegExp,
): Promise<string> {
  const run = ['docker', 'run', '--detach', '--name=agent', ...options, '--volume=/run/flannel:/run/flannel', image];
  await docker.exec([...run, ...flags, '--ip-masq']);
  const log = async (): Promise<string> => {
    const { stdout, stderr } = await docker.exec(['docker', 'logs', 'agent']);
    return stdout + stderr;
  };
  try {
    const found = async () => [await log()].find((text) => fits.test(text));
    return await eventually(`the log has ${fits}`, found, 60_000);
  } catch (error) {
    throw new Error(`${String(error)}\n${await log()}`, { cause: error });
  } finally {
    await docker.exec(['docker', 'rm', '--force', 'agent']);
  }
}
