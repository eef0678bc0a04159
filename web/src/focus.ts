/** Whether what had the focus is gone from the page: who uses the keyboard would have to begin at the top again. */
export function hasLostFocus(): boolean {
  return document.activeElement === null || document.activeElement === document.body;
}
