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
    .summary('generate a new key for the wireguard backend of this host')
    .description(
      'Write a new private key and print its public key. A running agent switches to it within two seconds ' +
        'and publishes the public key to its peers. A peer is unreachable for a moment, until it has received the new key.',
    )
    .option('--key-file <file>', "the agent's key file", process.env.WIREGUARD_KEY_FILE ?? WIREGUARD_KEY_FILE)
    .action(rotateKey);
}

async function rotateKey({ keyFile }: RotateKeyFlags): Promise<void> {
  const text = newPrivateKey(randomBytes);
  const { publicKey } = keyPairOf({ path: keyFile, text });
  await writeKeyFile(keyFile, text);
  process.stdout.write(`${publicKey}\n`);
  process.stderr.write(`weft: ${keyFile} has a new key. A running agent uses and publishes it within two seconds.\n`);
}
