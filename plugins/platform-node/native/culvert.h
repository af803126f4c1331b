/* What the C files of the native file share. */

#ifndef CULVERT_H
#define CULVERT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Memory --------------------------------------------------------------------------------------- */

struct bytes {
  uint8_t *data;
  size_t length;
};

/* Records may lie at any offset, and 32-bit ARM does not load unaligned words everywhere. */
static inline uint32_t load(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline void store(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

/* Whether `count` things of `size` bytes lie inside of `memory` from `offset` on. */
static inline int holds(struct bytes memory, uint32_t offset, uint32_t count, uint32_t size) {
  return (uint64_t)offset + (uint64_t)count * size <= memory.length;
}

/* Batches of packets and datagrams: batch.c ----------------------------------------------------- */

/* As `Native` of core/plugin/native.ts documents them; each returns a count or a negative errno. */
long read_batch(int fd, struct bytes arena, uint32_t into, uint32_t end, uint32_t table,
                uint32_t most);
long write_batch(int fd, struct bytes arena, uint32_t table, uint32_t count);
long receive_batch(int fd, struct bytes arena, uint32_t into, uint32_t end, uint32_t table,
                   uint32_t most);
long send_batch(struct bytes arena, uint32_t table, uint32_t count, int wait_ms);

/* Transport messages: aead.c ------------------------------------------------------------------- */

/* core/fastpath/layout.ts; a test compares the numbers. */
#define MESSAGE_SIZE 32
#define MESSAGE_OFFSET 0
#define MESSAGE_LENGTH 4
#define MESSAGE_COUNTER_LOW 8
#define MESSAGE_KEY 16
#define MESSAGE_AUTHENTIC 20
#define MESSAGE_HEADER_SIZE 16
#define TAG_SIZE 16
#define KEY_SIZE 32

/* What one thread needs to seal and to open. */
struct aead;

/* Returns NULL where the process has no OpenSSL, or one without ChaCha20-Poly1305. */
struct aead *aead_new(void);
void aead_free(struct aead *aead);

/*
 * Work through `count` message records from offset `first` on, which must lie inside of the arena.
 * aead_seal stops at the first message that cannot be sealed; aead_open sets whether each one was
 * authentic. They return the number of messages sealed or found authentic.
 */
uint32_t aead_seal(struct aead *aead, struct bytes arena, uint32_t first, uint32_t count);
uint32_t aead_open(struct aead *aead, struct bytes arena, uint32_t first, uint32_t count);

#endif
