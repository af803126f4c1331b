/**
 * The transport cipher: ChaCha20-Poly1305 (RFC 8439 §2.8) over message records, in place.
 *
 * The nonce is 32 zero bits ‖ counter and there is no additional data (WireGuard whitepaper §5.4.6).
 * Block 0 of the key stream gives the Poly1305 key, the payload begins with block 1.
 *
 * With SIMD, key stream is made for 256 bytes at a time while Poly1305 takes in what else is ready. So
 * that this holds at the ends of a message too, neighbours in a batch overlap: the first key stream of a
 * message is made while Poly1305 finishes the message before (seal) or begins it (open).
 */
import {
  MESSAGE_AUTHENTIC,
  MESSAGE_HEADER_SIZE,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
} from '../layout';
import { fourBlocks, oneBlock, STORE, XOR } from './chacha20';
import { absorb, finish, isTag, start, writeTag } from './poly1305';

/** Key stream of the first four blocks of a message, of two messages in turn. */
const FIRST: usize = memory.data(256, 16);
const OTHER_FIRST: usize = memory.data(256, 16);
/** Key stream of the last four, some of which lie beyond the end of the payload. */
const LAST: usize = memory.data(256, 16);

/** Payload bytes under the first four blocks, and under each four that follow. */
const FIRST_BYTES: usize = 192;
const FOUR_BYTES: usize = 256;

export function seal(first: usize, count: i32): void {
  const end = first + count * MESSAGE_SIZE;
  if (ASC_FEATURE_SIMD) {
    sealFour(first, end);
  } else {
    for (let message = first; message < end; message += MESSAGE_SIZE) sealOne(message);
  }
}

export function open(first: usize, count: i32): void {
  const end = first + count * MESSAGE_SIZE;
  if (ASC_FEATURE_SIMD) {
    openFour(first, end);
  } else {
    for (let message = first; message < end; message += MESSAGE_SIZE) openOne(message);
  }
}

/* Four blocks at a time -------------------------------------------------------------------------- */

function sealFour(first: usize, end: usize): void {
  // Where the ciphertext of the message before begins that Poly1305 has yet to take in.
  let absorbed: usize = 0;
  let even: usize = 0;
  for (let message = first; message < end; message += MESSAGE_SIZE) {
    fourBlocks(message, 0, FIRST, STORE, absorbed, even);
    if (message > first) writeTagOf(message - MESSAGE_SIZE, even);
    start(FIRST);
    const payload = payloadOf(message);
    const length = load<usize>(message, MESSAGE_LENGTH);
    let done = min(length, FIRST_BYTES);
    applyStream(payload, FIRST + 64, done);
    absorbed = payload;
    let counter = 4;
    for (; done + FOUR_BYTES <= length; done += FOUR_BYTES, counter += 4) {
      fourBlocks(message, counter, payload + done, XOR, absorbed, payload + done);
      absorbed = payload + done;
    }
    if (done < length) {
      fourBlocks(message, counter, LAST, STORE, absorbed, payload + done);
      absorbed = payload + done;
      applyStream(absorbed, LAST, length - done);
    }
    even = evenBlocks(absorbed, payload + length);
  }
  if (first < end) {
    absorb(absorbed, even);
    writeTagOf(end - MESSAGE_SIZE, even);
  }
}

function openFour(first: usize, end: usize): void {
  let stream = FIRST;
  let nextStream = OTHER_FIRST;
  if (first < end) fourBlocks(first, 0, stream, STORE, 0, 0);
  for (let message = first; message < end; message += MESSAGE_SIZE) {
    start(stream);
    const payload = payloadOf(message);
    const length = load<usize>(message, MESSAGE_LENGTH);
    const begun = min(length, FIRST_BYTES);
    let absorbed = evenBlocks(payload, payload + begun);
    if (message + MESSAGE_SIZE < end) {
      fourBlocks(message + MESSAGE_SIZE, 0, nextStream, STORE, payload, absorbed);
    } else {
      absorb(payload, absorbed);
    }
    let done = begun;
    let counter = 4;
    for (; done + FOUR_BYTES <= length; done += FOUR_BYTES, counter += 4) {
      const to = payload + done;
      absorbed = to + FOUR_BYTES;
      fourBlocks(message, counter, to, XOR, to, absorbed);
    }
    if (done < length) {
      const to = payload + done;
      absorbed = evenBlocks(to, payload + length);
      fourBlocks(message, counter, LAST, STORE, to, absorbed);
    }
    finishMessage(message, absorbed);
    store<i32>(message, i32(isTag(payload + length)), MESSAGE_AUTHENTIC);
    applyStream(payload, stream + 64, begun);
    applyStream(payload + done, LAST, length - done);
    const swapped = stream;
    stream = nextStream;
    nextStream = swapped;
  }
}

function writeTagOf(message: usize, absorbed: usize): void {
  finishMessage(message, absorbed);
  writeTag(payloadOf(message) + load<usize>(message, MESSAGE_LENGTH));
}

/** Returns the end of the blocks that are whole in [from, end), without the last one of an odd number. */
function evenBlocks(from: usize, end: usize): usize {
  return from + ((end - from) & ~31);
}

/* One block at a time ---------------------------------------------------------------------------- */

function sealOne(message: usize): void {
  makeOneTimeKey(message);
  encryptOne(message);
  writeTagOf(message, payloadOf(message));
}

function openOne(message: usize): void {
  const payload = payloadOf(message);
  makeOneTimeKey(message);
  finishMessage(message, payload);
  const authentic = isTag(payload + load<usize>(message, MESSAGE_LENGTH));
  store<i32>(message, i32(authentic), MESSAGE_AUTHENTIC);
  if (authentic) encryptOne(message);
}

function makeOneTimeKey(message: usize): void {
  oneBlock(message, 0, FIRST);
  start(FIRST);
}

/** Decryption is the same. */
function encryptOne(message: usize): void {
  const payload = payloadOf(message);
  const length = load<usize>(message, MESSAGE_LENGTH);
  let counter = 1;
  for (let done: usize = 0; done < length; done += 64, counter++) {
    oneBlock(message, counter, FIRST);
    applyStream(payload + done, FIRST, min<usize>(64, length - done));
  }
}

/* Both ------------------------------------------------------------------------------------------- */

function payloadOf(message: usize): usize {
  return load<usize>(message, MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
}

/** Takes in the ciphertext of a message from `absorbed` on and makes the tag. */
function finishMessage(message: usize, absorbed: usize): void {
  const length = load<usize>(message, MESSAGE_LENGTH);
  const end = payloadOf(message) + length;
  const whole = end - (length & 15);
  absorb(absorbed, whole);
  finish(whole, end, length);
}

function applyStream(to: usize, stream: usize, length: usize): void {
  let i: usize = 0;
  if (ASC_FEATURE_SIMD) {
    for (; i + 16 <= length; i += 16) {
      v128.store(to + i, v128.xor(v128.load(to + i), v128.load(stream + i)));
    }
  }
  for (; i + 8 <= length; i += 8) {
    store<u64>(to + i, load<u64>(to + i) ^ load<u64>(stream + i));
  }
  for (; i < length; i++) store<u8>(to + i, load<u8>(to + i) ^ load<u8>(stream + i));
}
