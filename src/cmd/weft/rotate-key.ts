import { randomBytes } from 'node:crypto';
import { Command } from 'commander';
import { keyPairOf, newPrivateKey } from '../../backend/wireguard-key.ts';
import { WIREGUARD_KEY_FILE } from '../../config/flanneld-options.ts';
import { writeKeyFile } from '../../linux/key-file.ts';

interface RotateKeyFlags {
  readonly keyFile: string;
}

/** `weft rotate-key`: another private key for this host. Standard output has the public key that belongs to it. */
export function rotateKeyCommand(): Command {
  return new Command('rotate-key')
    .summary('give this host a new key for the backend wireguard')
    .description(
      'Writes a new private key and prints its public key. The agent takes it, and tells its peers, when it is started again; ' +
        'until then the old one stays in use. Peers that have not heard of it yet are not reached for a moment.',
    )
    .option('--key-file <file>', 'as the agent has it', process.env.WIREGUARD_KEY_FILE ?? WIREGUARD_KEY_FILE)
    .action(rotateKey);
}

async function rotateKey({ keyFile }: RotateKeyFlags): Promise<void> {
  const text = newPrivateKey(randomBytes);
  const { publicKey } = keyPairOf({ path: keyFile, text });
  await writeKeyFile(keyFile, text);
  process.stdout.write(`${publicKey}\n`);
  process.stderr.write(`weft: ${keyFile} has a new key. It is used from the next start of the agent on.\n`);
}
