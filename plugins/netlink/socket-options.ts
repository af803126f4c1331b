import { arch } from 'node:process';

/** Socket options whose numbers MIPS has its own of (asm/socket.h); SO_RCVBUFFORCE is 33 everywhere. */
const isMips = arch.startsWith('mips');

export const SOL_SOCKET: number = isMips ? 0xffff : 1;
export const SO_RCVBUF: number = isMips ? 0x1002 : 8;
export const SO_RCVBUFFORCE = 33;
export const SO_SNDBUF: number = isMips ? 0x1001 : 7;
export const SO_SNDBUFFORCE: number = isMips ? 31 : 32;
