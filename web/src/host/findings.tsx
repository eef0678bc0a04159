import type { Finding } from '../model/host-figures.ts';
import { Remedy } from '../remedy.tsx';

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
