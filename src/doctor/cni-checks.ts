import { join } from 'node:path';
import { confFilesBefore, hiddenBy } from '../cni/conf-dir.ts';
import { CONF_FILE_NAME, type ConfList, FLANNEL_CONF_LIST, parseConfList, programsOf } from '../cni/conf-list.ts';
import { isWrittenByWeft } from '../cni/final-conf.ts';
import { whyNotRunnable } from '../cni/install-plugins.ts';
import { pluginRemedy } from '../cni/plugin-remedy.ts';
import { describeError } from '../errors.ts';
import { type Check, fail, ok, warn } from './check.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';

/** What a container runtime finds when it adds a pod. */
export function cniChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  const confPath = join(paths.cniConfDir, CONF_FILE_NAME);
  /** What is in force, or will be. */
  const confList = async (): Promise<ConfList> => {
    for (const path of [confPath, paths.cniConfTemplate]) {
      const text = await host.readText(path);
      if (text !== undefined) return parseConfList(text, path);
    }
    return FLANNEL_CONF_LIST;
  };
  return [
    {
      name: 'cni-plugins',
      looksAt: `the programs in ${paths.cniBinDir} that set up a pod`,
      run: async () => {
        const inForce = (await host.readText(confPath)) !== undefined;
        const programs = [...programsOf(await confList(), inForce), 'loopback'];
        if ((await host.modifiedAt(paths.cniBinDir)) === undefined) {
          return host.inPod
            ? ok("the directory is not mounted here; the agent's init container checks it")
            : warn(
                `${paths.cniBinDir} does not exist`,
                'On a Kubernetes node, run weft install-cni. If the directory is another one, pass it with --cni-bin-dir.',
              );
        }
        const problems = await Promise.all(programs.map((program) => problemOf(program, paths.cniBinDir, host)));
        const told = problems.filter((problem) => problem !== undefined);
        return told.length === 0 ? ok(programs.join(', ')) : fail(told.join(' '), 'Or run weft install-cni.');
      },
    },
    {
      name: 'cni-conf',
      looksAt: confPath,
      run: async () => {
        const text = await host.readText(confPath);
        if (text === undefined) {
          if ((await host.modifiedAt(paths.cniConfDir)) === undefined)
            return ok('there is no CNI configuration directory');
          return warn(
            'the file does not exist: kubelet reports the node as not ready',
            'With --cni-conf-dir the agent writes it when it is ready (see health). Otherwise install it by hand.',
          );
        }
        try {
          const list = parseConfList(text, confPath);
          const by = isWrittenByWeft(text) ? 'kept by the agent' : 'not kept by the agent';
          return ok(`${list.plugins.map(({ type }) => type).join(', ')}; ${by}`);
        } catch (error) {
          return fail(describeError(error), 'Remove it. With --cni-conf-dir the agent writes it again.');
        }
      },
    },
    {
      name: 'cni-conf-order',
      looksAt: `files in ${paths.cniConfDir} that take precedence in the container runtime`,
      run: async () => {
        const hiding = await confFilesBefore(paths.cniConfDir, CONF_FILE_NAME);
        if (hiding.length === 0) return ok('none');
        const [first] = hiding;
        // It starts the plugins of the next configuration, ours, and then its own.
        const isMultus = (await host.readText(join(paths.cniConfDir, first!)))?.includes('"multus');
        if (isMultus) return ok(`${first} of Multus, which delegates to the next configuration`);
        const remedy = hiddenBy(paths.cniConfDir, hiding, CONF_FILE_NAME);
        return (await host.readText(confPath)) === undefined
          ? warn(hiding.join(', '), remedy)
          : fail(hiding.join(', '), remedy);
      },
    },
  ];
}

async function problemOf(program: string, folder: string, host: DoctorHost): Promise<string | undefined> {
  const path = join(folder, program);
  if ((await host.modifiedAt(path)) === undefined) return `${path} does not exist. ${pluginRemedy(program, [folder])}`;
  return whyNotRunnable(path);
}
