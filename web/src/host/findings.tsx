import type { Doctor } from '../../../src/api/schema.ts';
import { clock, count } from '../format.ts';
import type { Finding } from '../model/host-figures.ts';
import { Remedy } from '../remedy.tsx';

interface FindingsProps {
  readonly findings: readonly Finding[];
  readonly doctor: Doctor | undefined;
  readonly doctorFailure: string | undefined;
}

export function Findings({ findings, doctor, doctorFailure }: FindingsProps) {
  return (
    <>
      {findings.length === 0 ? (
        <p class="good">Nothing is wrong.</p>
      ) : (
        <ul>
          {findings.map(({ tone, title, text, remedy }) => (
            <li key={title + text} class={`problem ${tone}`}>
              <strong>{title}</strong>
              <span>{text}</span>
              {remedy !== undefined && <Remedy text={remedy} />}
            </li>
          ))}
        </ul>
      )}
      <p class="dim top">{doctorWords(doctor, doctorFailure)}</p>
    </>
  );
}

function doctorWords(doctor: Doctor | undefined, failure: string | undefined): string {
  if (doctor !== undefined) return `${count(doctor.checks.length, 'check')} of weft doctor, ${clock(doctor.atMs)}`;
  return failure === undefined ? 'weft doctor looks at the host…' : `without weft doctor: ${failure}`;
}
