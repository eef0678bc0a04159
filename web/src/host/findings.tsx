import { useState } from 'preact/hooks';
import type { Finding } from '../model/host-figures.ts';

export function Findings({ findings }: { readonly findings: readonly Finding[] }) {
  if (findings.length === 0) return <p class="good">Nothing is wrong.</p>;
  return (
    <ul>
      {findings.map(({ tone, title, text, remedy }) => (
        <li key={title + text} class={`problem ${tone}`}>
          <strong>{title}</strong>
          <span>{text}</span>
          {remedy !== undefined && <Remedy text={remedy} />}
        </li>
      ))}
    </ul>
  );
}

function Remedy({ text }: { readonly text: string }) {
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
