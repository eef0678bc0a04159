/** Whether a Node.js system error has this name of errno(3), such as `ENOENT`. Imports nothing: the CNI plugin starts once a pod. */
export function hasErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
