import type { Status } from '../core/engine/status.ts';
import type { CryptoReport } from './fast-path.ts';

/** What `culvert status --json` prints: what the engine knows, and what computes for it. */
export interface DaemonStatus extends Status {
  readonly crypto: CryptoReport;
}
