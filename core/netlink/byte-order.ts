/** Netlink headers and most integers are in the machine's order: the `littleEndian` of DataView calls. */
export const HOST_IS_LITTLE_ENDIAN: boolean = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Messages and attributes start at multiples of four bytes. */
export function aligned(length: number): number {
  return (length + 3) & ~3;
}
