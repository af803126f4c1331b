/*
 * ChaCha20-Poly1305 through the OpenSSL that node has inside of it, or loads as a library. Nothing is
 * linked: its functions are weak symbols, which the loaders of glibc and musl leave at NULL where
 * nobody defines them. That is so in a node without OpenSSL, and with BoringSSL, which offers this
 * cipher under another interface only.
 */

#include "culvert.h"
#include <stdlib.h>

/* What we use of <openssl/evp.h> and <openssl/err.h>, the same since OpenSSL 1.1. */
#define OPTIONAL __attribute__((weak))
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
#define EVP_CTRL_AEAD_GET_TAG 0x10
#define EVP_CTRL_AEAD_SET_TAG 0x11
OPTIONAL const EVP_CIPHER *EVP_chacha20_poly1305(void);
OPTIONAL EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void);
OPTIONAL void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context);
OPTIONAL int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int type, int length, void *data);
OPTIONAL int EVP_CipherInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, void *engine,
                               const uint8_t *key, const uint8_t *nonce, int encrypt);
OPTIONAL int EVP_CipherUpdate(EVP_CIPHER_CTX *context, uint8_t *out, int *out_length,
                              const uint8_t *in, int in_length);
OPTIONAL int EVP_CipherFinal_ex(EVP_CIPHER_CTX *context, uint8_t *out, int *out_length);
OPTIONAL void ERR_clear_error(void);

/* Which way a context goes; for EVP_CipherInit_ex. */
enum { OPEN = 0, SEAL = 1, UNCHANGED = -1 };

struct aead {
  EVP_CIPHER_CTX *sealing;
  EVP_CIPHER_CTX *opening;
};

static int has_openssl(void) {
  return EVP_chacha20_poly1305 != NULL && EVP_CIPHER_CTX_new != NULL &&
         EVP_CIPHER_CTX_free != NULL && EVP_CIPHER_CTX_ctrl != NULL &&
         EVP_CipherInit_ex != NULL && EVP_CipherUpdate != NULL && EVP_CipherFinal_ex != NULL &&
         ERR_clear_error != NULL;
}

/* OpenSSL queues its errors per thread; node would take those that we leave for errors of TLS. */
static void forget_errors(void) { ERR_clear_error(); }

static EVP_CIPHER_CTX *new_context(int direction) {
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context != NULL &&
      EVP_CipherInit_ex(context, EVP_chacha20_poly1305(), NULL, NULL, NULL, direction) == 1)
    return context;
  /* It is known but not to be had, as in FIPS mode. */
  EVP_CIPHER_CTX_free(context);
  forget_errors();
  return NULL;
}

struct aead *aead_new(void) {
  if (!has_openssl()) return NULL;
  struct aead *aead = calloc(1, sizeof *aead);
  if (aead == NULL) return NULL;
  aead->sealing = new_context(SEAL);
  aead->opening = new_context(OPEN);
  if (aead->sealing != NULL && aead->opening != NULL) return aead;
  aead_free(aead);
  return NULL;
}

void aead_free(struct aead *aead) {
  if (aead == NULL) return;
  EVP_CIPHER_CTX_free(aead->sealing);
  EVP_CIPHER_CTX_free(aead->opening);
  free(aead);
}

struct message {
  uint8_t *payload;
  uint8_t *tag;
  const uint8_t *key;
  int length;
  uint8_t nonce[12]; /* 32 zero bits, then the counter */
};

/* Reads a record; returns 0 when the message or its key leaves the arena. */
static int read_message(struct message *message, struct bytes arena, const uint8_t *record) {
  uint32_t offset = load(record + MESSAGE_OFFSET), length = load(record + MESSAGE_LENGTH);
  uint32_t key = load(record + MESSAGE_KEY);
  if (length > INT32_MAX) return 0;
  if (!holds(arena, offset, 1, MESSAGE_HEADER_SIZE + length + TAG_SIZE)) return 0;
  if (!holds(arena, key, 1, KEY_SIZE)) return 0;
  message->payload = arena.data + offset + MESSAGE_HEADER_SIZE;
  message->tag = message->payload + length;
  message->key = arena.data + key;
  message->length = (int)length;
  memset(message->nonce, 0, 4);
  memcpy(message->nonce + 4, record + MESSAGE_COUNTER_LOW, 8);
  return 1;
}

/* Sets the nonce and, where the last message had another one, the key. */
static int start(EVP_CIPHER_CTX *context, const struct message *message, const uint8_t *last_key) {
  const uint8_t *key = message->key == last_key ? NULL : message->key;
  return EVP_CipherInit_ex(context, NULL, NULL, key, message->nonce, UNCHANGED) == 1;
}

/* Encrypts or decrypts in place; in the end the tag is made, or verified. */
static int finish(EVP_CIPHER_CTX *context, const struct message *message) {
  int written = 0, last = 0;
  if (message->length > 0 && EVP_CipherUpdate(context, message->payload, &written,
                                              message->payload, message->length) != 1)
    return 0;
  return written == message->length && EVP_CipherFinal_ex(context, message->tag, &last) == 1;
}

static int seal_message(EVP_CIPHER_CTX *context, const struct message *message,
                        const uint8_t *last_key) {
  return start(context, message, last_key) && finish(context, message) &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, message->tag) == 1;
}

static int open_message(EVP_CIPHER_CTX *context, const struct message *message,
                        const uint8_t *last_key) {
  return start(context, message, last_key) &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, message->tag) == 1 &&
         finish(context, message);
}

/*
 * Both set the key for the first message of a call and when its place changes, never by comparing
 * with what the context has: between calls the place of a key is free to get another one.
 */

uint32_t aead_seal(struct aead *aead, struct bytes arena, uint32_t first, uint32_t count) {
  const uint8_t *last_key = NULL;
  for (uint32_t i = 0; i < count; i++) {
    struct message message;
    if (!read_message(&message, arena, arena.data + first + i * MESSAGE_SIZE)) return i;
    if (!seal_message(aead->sealing, &message, last_key)) {
      forget_errors();
      return i;
    }
    last_key = message.key;
  }
  return count;
}

uint32_t aead_open(struct aead *aead, struct bytes arena, uint32_t first, uint32_t count) {
  const uint8_t *last_key = NULL;
  uint32_t opened = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *record = arena.data + first + i * MESSAGE_SIZE;
    struct message message;
    int authentic = 0;
    if (read_message(&message, arena, record)) {
      authentic = open_message(aead->opening, &message, last_key);
      last_key = authentic ? message.key : NULL;
      if (!authentic) forget_errors();
    }
    store(record + MESSAGE_AUTHENTIC, (uint32_t)authentic);
    opened += (uint32_t)authentic;
  }
  return opened;
}
