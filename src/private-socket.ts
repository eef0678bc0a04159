/** Read and written by its user alone. */
const OTHERS_AND_EXECUTION = 0o177;

/**
 * Unix sockets that `make` binds are for this user, and root, alone: nobody comes in between that and a change of their mode. It must not
 * wait: the mode is the process's (umask(2)).
 */
export function privately<T>(make: () => T): T {
  const before = process.umask(OTHERS_AND_EXECUTION);
  try {
    return make();
  } finally {
    process.umask(before);
  }
}

/** Whether a process of that user may speak with an agent by its sockets. @param own user of the agent. */
export function isAdmitted(user: number | undefined, own: number | undefined): boolean {
  return user !== undefined && (user === 0 || user === own);
}
