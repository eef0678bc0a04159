import { CNI_CODES, CniError } from '../../cni/cni-error.ts';

/** Every version of the CNI specification that flannel's plugin accepts, oldest first. */
export const SUPPORTED_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

/** What VERSION prints, without the line end. */
export const VERSION_RESULT: string = JSON.stringify({
  cniVersion: SUPPORTED_VERSIONS.at(-1),
  supportedVersions: SUPPORTED_VERSIONS,
});

/** A configuration without a version is one of 0.1.0. */
export function effectiveVersion(cniVersion: string): string {
  return cniVersion === '' ? '0.1.0' : cniVersion;
}

/** @throws CniError (1) unless the version is one of {@link SUPPORTED_VERSIONS}, spelled as there. */
export function checkSupported(version: string): void {
  if ((SUPPORTED_VERSIONS as readonly string[]).includes(version)) return;
  const supported = SUPPORTED_VERSIONS.map((known) => JSON.stringify(known)).join(' ');
  throw new CniError(
    CNI_CODES.incompatibleVersion,
    'incompatible CNI versions',
    `config is ${JSON.stringify(version)}, plugin supports [${supported}]`,
  );
}

/**
 * For commands that came with a later version of the specification.
 *
 * @throws CniError (1) when the configuration's version is older than `since` or none that the plugin supports; (6) when
 *   it is no version at all.
 */
export function checkAllows(command: string, version: string, since: string): void {
  if (compareVersions(version, since) < 0) {
    throw new CniError(CNI_CODES.incompatibleVersion, `config version does not allow ${command}`);
  }
  if (compareVersions(version, SUPPORTED_VERSIONS.at(-1)!) > 0) {
    throw new CniError(CNI_CODES.incompatibleVersion, `plugin version does not allow ${command}`);
  }
  checkSupported(version);
}

function compareVersions(a: string, b: string): number {
  const [x, y] = [parseVersion(a), parseVersion(b)];
  return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
}

/** Missing parts are 0: `1` is 1.0.0. */
function parseVersion(text: string): [number, number, number] {
  const parts = text.split('.');
  if (parts.length > 3 || !parts.every((part) => /^[+-]?\d{1,9}$/.test(part))) {
    throw new CniError(
      CNI_CODES.decodingFailure,
      `invalid version ${JSON.stringify(text)}: want numbers with dots: 1.0.0`,
    );
  }
  const [major = 0, minor = 0, micro = 0] = parts.map(Number);
  return [major, minor, micro];
}
