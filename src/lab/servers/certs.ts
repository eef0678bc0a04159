import { mkdir, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { run } from '../../linux/run.ts';

export interface KeyPair {
  /** PEM files. */
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate authority in a folder of its own, made with openssl; elliptic curves, since they are fast to make. */
export class CertificateAuthority {
  readonly #dir: string;
  readonly #self: KeyPair;

  private constructor(dir: string) {
    this.#dir = dir;
    this.#self = { certFile: join(dir, 'ca.crt'), keyFile: join(dir, 'ca.key') };
  }

  static async create(dir: string, commonName: string): Promise<CertificateAuthority> {
    await mkdir(dir, { recursive: true });
    const ca = new CertificateAuthority(dir);
    await run([...newRequest(ca.#self), '-subj', `/CN=${commonName}`]);
    return ca;
  }

  get certFile(): string {
    return this.#self.certFile;
  }

  /** `names` are host names and IP addresses. */
  async issueServer(name: string, names: readonly string[]): Promise<KeyPair> {
    const alternatives = names.map((one) => `${isIP(one) ? 'IP' : 'DNS'}:${one}`).join(',');
    return this.#issue(name, `/CN=${name}`, ['-addext', `subjectAltName=${alternatives}`]);
  }

  /** The organization is the user's group for Kubernetes. */
  async issueClient(commonName: string, organization?: string): Promise<KeyPair> {
    const subject = `${organization === undefined ? '' : `/O=${organization}`}/CN=${commonName}`;
    return this.#issue(commonName.replaceAll(/[^\w.-]/g, '_'), subject, ['-addext', 'extendedKeyUsage=clientAuth']);
  }

  async #issue(file: string, subject: string, extensions: readonly string[]): Promise<KeyPair> {
    const pair = { certFile: join(this.#dir, `${file}.crt`), keyFile: join(this.#dir, `${file}.key`) };
    const signer = ['-CA', this.#self.certFile, '-CAkey', this.#self.keyFile];
    const leaf = ['-addext', 'basicConstraints=critical,CA:FALSE'];
    await run([...newRequest(pair), ...signer, '-subj', subject, ...leaf, ...extensions]);
    return pair;
  }
}

/** A key pair for signing (service account tokens); the public half is in `<name>.pub`. */
export async function createSigningKey(dir: string, name: string): Promise<{ keyFile: string; publicKeyFile: string }> {
  const keyFile = join(dir, `${name}.key`);
  const publicKeyFile = join(dir, `${name}.pub`);
  await run(['openssl', 'ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', keyFile]);
  const { stdout } = await run(['openssl', 'ec', '-in', keyFile, '-pubout']);
  await writeFile(publicKeyFile, stdout);
  return { keyFile, publicKeyFile };
}

function newRequest({ certFile, keyFile }: KeyPair): string[] {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  return ['openssl', 'req', '-x509', ...key, '-days', '30', '-keyout', keyFile, '-out', certFile];
}
