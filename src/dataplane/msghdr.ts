/** Where the fields of `struct msghdr` lie on 64-bit Linux (linux/socket.h), and how long it is. */
export const NAME = 0;
export const NAME_LENGTH = 8;
export const IOV = 16;
export const IOV_COUNT = 24;
export const CONTROL = 32;
export const CONTROL_LENGTH = 40;
export const FLAGS = 48;
export const MSGHDR_BYTES = 56;
