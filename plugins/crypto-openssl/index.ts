import type { TransportCipher } from '../../core/fastpath/cipher.ts';
import { failedKnownAnswer } from '../../core/fastpath/known-answer.ts';
import type { Native } from '../../core/plugin/native.ts';
import type { Skip } from '../../core/plugin/plugin.ts';
import { BugError } from '../../core/sansio/outcome.ts';

/**
 * Returns a transport cipher that hands whole batches to the OpenSSL inside of node, or says why there
 * is none. Overwrites what lies at OUT in the arena.
 */
export function createOpensslCipher(native: Native, arena: ArrayBuffer): TransportCipher | Skip {
  if (native.aeadSeal(arena, 0, 0) < 0) {
    return { skip: 'this Node.js has no OpenSSL with ChaCha20-Poly1305' };
  }
  const cipher: TransportCipher = {
    name: 'openssl',
    seal(first, count) {
      const sealed = native.aeadSeal(arena, first, count);
      // Plaintext must not get out: nothing is sent after this.
      if (sealed !== count) throw new BugError(`OpenSSL sealed ${sealed} of ${count} messages`);
    },
    open(first, count) {
      const opened = native.aeadOpen(arena, first, count);
      if (opened < 0) throw new BugError(`OpenSSL does not open messages: ${opened}`);
    },
  };
  const wrong = failedKnownAnswer(cipher, arena);
  return wrong === undefined ? cipher : { skip: `the OpenSSL of this Node.js ${wrong}` };
}
