import { createRequire } from 'node:module';
import { join } from 'node:path';

/** The parts of CycloneDX' JavaScript library that are used here. */
interface CycloneDx {
  readonly Spec: { readonly Version: { readonly v1dot6: unknown } };
  readonly Validation: {
    readonly JsonStrictValidator: new (version: unknown) => { validate(text: string): Promise<unknown> };
  };
}

/** Installed by scripts/setup.sh e2e. */
const LIBRARY = '@cyclonedx/cyclonedx-library';

/** What is wrong with a bill of materials by CycloneDX' own schema, which nothing may be in that it does not know; else null. */
export function cycloneDxProblems(text: string): Promise<unknown> {
  const { Spec, Validation } = createRequire(join(import.meta.dirname, 'package.json'))(LIBRARY) as CycloneDx;
  return new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(text);
}
