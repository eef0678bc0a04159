import { useState } from 'preact/hooks';

/** What to do, to be read and to be copied. */
export function Remedy({ text }: { readonly text: string }) {
  const [isCopied, setCopied] = useState(false);
  return (
    <span class="remedy">
      {text}{' '}
      <button
        type="button"
        class="link"
        onClick={() =>
          void navigator.clipboard.writeText(text).then(
            () => setCopied(true),
            () => setCopied(false),
          )
        }
      >
        {isCopied ? 'Copied' : 'Copy'}
      </button>
    </span>
  );
}
