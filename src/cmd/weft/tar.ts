const BLOCK = 512;
const REGULAR_FILE = '0';
/** Of the name field. */
const MAX_NAME = 99;

export interface TarFile {
  /** Relative, with slashes, at most 99 bytes of ASCII. */
  readonly name: string;
  readonly content: string;
}

/** An archive of text files in POSIX's ustar form, readable for their owner alone. @throws RangeError for a name that does not fit. */
export function tarOf(files: readonly TarFile[], modified: Date): Uint8Array {
  const parts = files.flatMap(({ name, content }) => {
    const data = Buffer.from(content, 'utf8');
    const padding = Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK);
    return [header(name, data.length, modified), data, padding];
  });
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

function header(name: string, size: number, modified: Date): Buffer {
  if (name.length > MAX_NAME || /[^\x20-\x7e]/.test(name)) throw new RangeError(`not a name for a tar file: ${name}`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0');
  block.write(name, 0);
  block.write(octal(0o600, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  block.write(octal(size, 11), 124);
  block.write(octal(Math.floor(modified.getTime() / 1000), 11), 136);
  // The sum is that of the header with spaces in its place.
  block.write(' '.repeat(8), 148);
  block.write(REGULAR_FILE, 156);
  block.write('ustar\0', 257);
  block.write('00', 263);
  block.write(
    octal(
      block.reduce((sum, byte) => sum + byte, 0),
      6,
    ),
    148,
  );
  block.write('\0 ', 154);
  return block;
}
