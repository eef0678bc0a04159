import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CNI_CODES, CniError, systemErrorText, toCniError } from '../../cni/cni-error.ts';
import { buildDelegateConfig, type DelegateConfig } from '../../cni/delegate-config.ts';
import { type GoValue, marshalGo } from '../../cni/go-marshal.ts';
import { type Attachment, type PluginConfig, parsePluginConfig, parseSavedHead } from '../../cni/plugin-config.ts';
import { type PluginSubnetEnv, parsePluginSubnetEnv } from '../../cni/plugin-subnet-env.ts';
import { hasErrno } from '../../errno.ts';
import { readStartupError } from '../../node-files/last-error.ts';
import { checkAllows, checkSupported, effectiveVersion, SUPPORTED_VERSIONS, VERSION_RESULT } from './cni-version.ts';
import { type Delegate, findDelegate, runDelegate } from './delegate.ts';
import { formatDelegateResult } from './delegate-result.ts';
import { checkNetworkName, checkNotOwnNetns, type Environment, type Request, readRequest } from './request.ts';
import { readSavedConfig, removeSavedConfig, saveConfig, savedAttachments } from './saved-config.ts';

/** What the plugin has of the process it runs in. */
export interface PluginProcess {
  readonly env: Environment;
  /** All of standard input; blocks until its end. */
  readonly readInput: () => string;
  /** To standard output, which the runtime reads. */
  readonly print: (text: string) => void;
  /** To standard error, for people. */
  readonly warn: (text: string) => void;
  /** The program, its version and platform, for who starts it by hand. */
  readonly about: () => string;
}

interface Call {
  readonly process: PluginProcess;
  readonly request: Request;
  readonly config: PluginConfig;
}

/** Does what CNI_COMMAND says and returns the exit code: 0, or 1 after an error object was printed. Never throws. */
export function runPlugin(process: PluginProcess): 0 | 1 {
  try {
    dispatch(process);
    return 0;
  } catch (error) {
    const { code, message, details } = toCniError(error);
    const members: [string, GoValue][] = [
      ['code', code],
      ['msg', message],
    ];
    if (details !== '') members.push(['details', details]);
    process.print(marshalGo(new Map(members), '    '));
    return 1;
  }
}

function dispatch(process: PluginProcess): void {
  const command = process.env.CNI_COMMAND ?? '';
  if (command === '') {
    const versions = SUPPORTED_VERSIONS.join(', ');
    process.warn(`${process.about()}\nCNI protocol versions supported: ${versions}\n`);
    return;
  }
  const request = readRequest(command, process.env);
  if (command === 'VERSION') {
    process.print(`${VERSION_RESULT}\n`);
    return;
  }
  const config = parsePluginConfig(readInput(process));
  checkNetworkName(config.name);
  const version = effectiveVersion(config.cniVersion);
  const call = { process, request, config };
  switch (command) {
    case 'ADD':
      checkSupported(version);
      add(call);
      break;
    case 'DEL':
      checkSupported(version);
      del(call);
      break;
    case 'CHECK':
      // As flannel's: a delegate that is strict about details would fail containers that work.
      checkAllows(command, version, '0.4.0');
      break;
    case 'GC':
      checkAllows(command, version, '1.1.0');
      collectGarbage(call);
      break;
    case 'STATUS':
      checkAllows(command, version, '1.1.0');
      checkReady(call);
      break;
    default:
      throw new CniError(CNI_CODES.invalidEnvironment, `unknown CNI_COMMAND: ${command}`);
  }
}

function readInput(process: PluginProcess): string {
  try {
    return process.readInput();
  } catch (error) {
    throw new CniError(CNI_CODES.ioFailure, `error reading from stdin: ${systemErrorText(error)}`);
  }
}

function add({ process, request, config }: Call): void {
  checkNotOwnNetns(request);
  const { type, json } = buildDelegateConfig(config, loadSubnetEnv(config.subnetFile));
  const delegate = prefixed('failed to delegate add', () => findDelegate(type, request.path));
  process.warn(`delegateAdd: netconf sent to delegate plugin:\n${json}\n`);
  const earlier = usable(readSavedConfig(config.dataDir, request));
  saveConfig(config.dataDir, request, json);
  let result: string;
  try {
    const output = runDelegate(delegate, json, process.env, process.warn);
    result = prefixed('failed to delegate add', () =>
      formatDelegateResult(output, effectiveVersion(config.cniVersion)),
    );
  } catch (error) {
    try {
      if (earlier === undefined) undoAdd(delegate, json, { process, request, config });
      // Somebody has added this interface before, with success perhaps: its DEL is the runtime's business.
      else saveConfig(config.dataDir, request, earlier);
    } catch (undoError) {
      process.warn(`the failed ADD could not be undone: ${toCniError(undoError).message}\n`);
    }
    throw error;
  }
  process.print(result);
}

/**
 * After a failed ADD, the delegate takes back what it may have done (CNI specification, section 4). Only when it cannot,
 * the file stays for the DEL that the runtime sends.
 */
function undoAdd(delegate: Delegate, json: string, { process, request, config }: Call): void {
  runDelegate(delegate, json, { ...process.env, CNI_COMMAND: 'DEL' }, process.warn);
  removeSavedConfig(config.dataDir, request);
}

function usable(json: string | undefined): string | undefined {
  return json === undefined || parseSavedHead(json) === undefined ? undefined : json;
}

/**
 * The file goes only once the delegate has taken the container down, so that a DEL that failed can be sent again. What
 * cannot be read has nothing to run and must not keep a container from being deleted.
 */
function del({ process, request, config }: Call): void {
  const json = readSavedConfig(config.dataDir, request);
  if (json === undefined) return;
  checkNotOwnNetns(request);
  const head = parseSavedHead(json);
  if (head === undefined) {
    process.warn(
      `failed to parse netconf: ${join(config.dataDir, request.containerId)} is no delegate configuration\n`,
    );
    return;
  }
  const delegate = prefixed('failed to delegate del', () => findDelegate(head.type, request.path));
  runDelegate(delegate, json, process.env, process.warn);
  removeSavedConfig(config.dataDir, request);
}

/**
 * Takes down every interface of this network that something is saved for and that the runtime does not list, and hands
 * the list on to the delegate. Goes on after an error. Without a list nothing is known to be garbage.
 *
 * @throws CniError with everything that went wrong.
 */
function collectGarbage(call: Call): void {
  const { process, request, config } = call;
  if (config.validAttachments === undefined) {
    process.warn('GC: the runtime lists no valid attachments (cni.dev/valid-attachments): nothing is removed\n');
    return;
  }
  const valid = new Set(config.validAttachments.map(nameOf));
  const errors: string[] = [];
  const attempt = (what: string, action: () => void): void => {
    try {
      action();
    } catch (error) {
      errors.push(`${what}: ${toCniError(error).message}`);
    }
  };
  for (const attachment of savedAttachments(config.dataDir)) {
    if (valid.has(nameOf(attachment))) continue;
    attempt(`container ${attachment.containerId}`, () => collectAttachment(attachment, call));
  }
  attempt('delegate', () => {
    const wanted = delegateWithoutContainer(config);
    if (wanted === undefined) return;
    forwardCommand(findDelegate(wanted.type, request.path), withAttachments(wanted.json, config), call);
  });
  if (errors.length > 0) throw new CniError(CNI_CODES.internal, `failed to collect garbage: ${errors.join('; ')}`);
}

function collectAttachment(attachment: Attachment, { process, request, config }: Call): void {
  const json = readSavedConfig(config.dataDir, attachment);
  const head = json === undefined ? undefined : parseSavedHead(json);
  // The directory may serve several networks, and the runtime speaks of one.
  if (json === undefined || head?.name !== config.name) return;
  runDelegate(
    findDelegate(head.type, request.path),
    json,
    {
      ...process.env,
      CNI_COMMAND: 'DEL',
      CNI_CONTAINERID: attachment.containerId,
      CNI_IFNAME: attachment.ifName,
      CNI_NETNS: '',
    },
    process.warn,
  );
  removeSavedConfig(config.dataDir, attachment);
}

function nameOf({ containerId, ifName }: Attachment): string {
  return `${containerId} ${ifName}`;
}

/** `undefined` as long as flanneld has not written subnet.env: there is no delegate to speak of then. */
function delegateWithoutContainer(config: PluginConfig): DelegateConfig | undefined {
  try {
    return buildDelegateConfig(config, loadSubnetEnv(config.subnetFile));
  } catch {
    return undefined;
  }
}

function withAttachments(json: string, config: PluginConfig): string {
  const attachments = (config.validAttachments ?? []).map(({ containerId, ifName }) => ({
    containerID: containerId,
    ifname: ifName,
  }));
  return marshalGo({ ...(JSON.parse(json) as object), 'cni.dev/valid-attachments': attachments });
}

/**
 * Whether a container could be added now: flanneld has written subnet.env, the delegate and its IPAM plugin are there, and
 * the delegate does not say otherwise.
 *
 * @throws CniError (50 or 51) saying what is missing and why.
 */
function checkReady(call: Call): void {
  const { request, config } = call;
  try {
    const wanted = buildDelegateConfig(config, loadSubnetEnv(config.subnetFile));
    const delegate = findDelegate(wanted.type, request.path);
    if (wanted.ipamType !== '') findDelegate(wanted.ipamType, request.path);
    forwardCommand(delegate, wanted.json, call);
  } catch (error) {
    const { code, message, details } = toCniError(error);
    const notReady = code === CNI_CODES.notAvailableLimited ? code : CNI_CODES.notAvailable;
    throw new CniError(notReady, message, details);
  }
}

/**
 * Runs the delegate with the command that the plugin itself got, GC or STATUS. A delegate that is older than these
 * commands is right not to know them, but then it may not know the configuration's version either, and its ADD fails.
 *
 * @throws CniError the delegate's own; (1) when it does not know the configuration's version.
 */
function forwardCommand(delegate: Delegate, json: string, { process, request, config }: Call): void {
  try {
    runDelegate(delegate, json, process.env, process.warn);
  } catch (error) {
    const version = effectiveVersion(config.cniVersion);
    const versions = supportedVersions(delegate, process);
    if (versions === undefined || versions.includes(version)) throw error;
    if (request.command === 'GC') return;
    throw new CniError(
      CNI_CODES.incompatibleVersion,
      `the plugin ${delegate.program} supports CNI ${versions.join(', ')}, and the network configuration has cniVersion ` +
        `${version}. Install newer CNI plugins, or lower cniVersion.`,
    );
  }
}

/** `undefined` when it does not say. */
function supportedVersions(delegate: Delegate, process: PluginProcess): string[] | undefined {
  try {
    const output = runDelegate(delegate, '{}', { ...process.env, CNI_COMMAND: 'VERSION' }, process.warn);
    const { supportedVersions: versions } = JSON.parse(output) as { supportedVersions?: unknown };
    return Array.isArray(versions) ? versions.map(String) : undefined;
  } catch {
    return undefined;
  }
}

/** @throws CniError (11) as long as there is none, (999) when it cannot be used; both with the agent's last words. */
function loadSubnetEnv(path: string): PluginSubnetEnv {
  try {
    return parsePluginSubnetEnv(readFileSync(path, 'utf8'), path);
  } catch (error) {
    const what =
      error instanceof Error && 'syscall' in error ? `open ${path}: ${systemErrorText(error)}` : systemErrorText(error);
    const startup = readStartupError(dirname(path));
    const why =
      startup === undefined ? '' : ` flanneld's last start-up error (${startup.at.toISOString()}): ${startup.text}`;
    throw new CniError(
      hasErrno(error, 'ENOENT') ? CNI_CODES.tryAgainLater : CNI_CODES.internal,
      `failed to load flannel 'subnet.env' file: ${what}. Check the flannel pod log for this node.${why}`,
    );
  }
}

function prefixed<T>(prefix: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const { code, message, details } = toCniError(error);
    throw new CniError(code, `${prefix}: ${message}`, details);
  }
}
