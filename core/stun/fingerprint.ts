/** Returns the value of FINGERPRINT over the bytes before it (RFC 8489 §14.7), as an unsigned number. */
export function fingerprint(bytes: Uint8Array): number {
  return (crc32(bytes) ^ FINGERPRINT_XOR) >>> 0;
}

/** "STUN" in ASCII: tells a fingerprint from the CRC of another protocol in the same datagram. */
const FINGERPRINT_XOR = 0x5354_554e;

/** CRC-32 of ITU V.42, bit-reflected as Ethernet and zlib have it. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (TABLE[(crc ^ byte) & 0xff] ?? 0);
  return ~crc;
}

const TABLE: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? 0xedb8_8320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});
