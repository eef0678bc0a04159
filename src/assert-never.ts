/** Exhaustiveness check for discriminated unions: the `default` branch that must not compile when a case is added. */
export function assertNever(value: never, what = 'variant'): never {
  throw new Error(`unreachable ${what}: ${JSON.stringify(value)}`);
}
