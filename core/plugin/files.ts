import type { Outcome } from '../sansio/outcome.ts';
import { capability, type Capability } from './capability.ts';

/**
 * Small durable documents of the daemon (keys, last known good, boot counter), by name in one state
 * directory. A write is atomic and durable (temporary file, fsync, rename), mode 0600, and does nothing
 * where the bytes are already there.
 */
export interface Files {
  /** Throws where the file is there and cannot be read: a key must never be taken for absent. */
  read(name: string): Uint8Array | undefined;
  write(name: string, bytes: Uint8Array): Outcome<void, 'not-writable'>;
  remove(name: string): void;
}

export const files: Capability<Files> = capability('files');
