/** Below which everything of this version of the API is. */
export const API_ROOT = '/api/v1';
