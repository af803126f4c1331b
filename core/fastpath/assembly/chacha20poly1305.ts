/**
 * The transport cipher: ChaCha20-Poly1305 (RFC 8439 §2.8) over message records, in place.
 *
 * The nonce is 32 zero bits ‖ counter and there is no additional data (WireGuard whitepaper §5.4.6).
 * Block 0 of the key stream gives the Poly1305 key, the payload begins with block 1.
 */
import {
  MESSAGE_AUTHENTIC,
  MESSAGE_COUNTER_HIGH,
  MESSAGE_COUNTER_LOW,
  MESSAGE_HEADER_SIZE,
  MESSAGE_KEY,
  MESSAGE_LENGTH,
  MESSAGE_OFFSET,
  MESSAGE_SIZE,
} from '../layout';
import { fourBlocks, oneBlock, STORE, XOR } from './chacha20';
import { absorb, finish, isTag, start, writeTag } from './poly1305';

/** Key stream of the first four blocks, and of four that reach beyond the end of the payload. */
const FIRST: usize = memory.data(256, 16);
const LAST: usize = memory.data(256, 16);

/** Payload bytes under the first four blocks, and under each four that follow. */
const FIRST_BYTES: i32 = 192;
const FOUR_BYTES: i32 = 256;

export function seal(first: i32, count: i32): void {
  const end = first + count * MESSAGE_SIZE;
  for (let message = first; message < end; message += MESSAGE_SIZE) {
    const payload = load<usize>(message, MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
    const length = load<i32>(message, MESSAGE_LENGTH);
    if (ASC_FEATURE_SIMD) sealFour(message, payload, length);
    else sealPlain(message, payload, length);
    writeTag(payload + length);
  }
}

export function open(first: i32, count: i32): void {
  const end = first + count * MESSAGE_SIZE;
  for (let message = first; message < end; message += MESSAGE_SIZE) {
    const payload = load<usize>(message, MESSAGE_OFFSET) + MESSAGE_HEADER_SIZE;
    const length = load<i32>(message, MESSAGE_LENGTH);
    if (ASC_FEATURE_SIMD) openFour(message, payload, length);
    else openPlain(message, payload, length);
    store<i32>(message, i32(isTag(payload + length)), MESSAGE_AUTHENTIC);
  }
}

/** Encrypts four blocks while Poly1305 takes in the four before them. */
function sealFour(message: usize, payload: usize, length: i32): void {
  const key = load<usize>(message, MESSAGE_KEY);
  const low = load<i32>(message, MESSAGE_COUNTER_LOW);
  const high = load<i32>(message, MESSAGE_COUNTER_HIGH);
  fourBlocks(key, low, high, 0, FIRST, STORE, 0, 0, 0);
  start(FIRST);
  let done = min(length, FIRST_BYTES);
  applyStream(payload, FIRST + 64, done);
  let absorbed = payload;
  let counter = 4;
  for (; done + FOUR_BYTES <= length; done += FOUR_BYTES, counter += 4) {
    const to = payload + done;
    fourBlocks(key, low, high, counter, to, XOR, absorbed, to, 32);
    absorbed = to;
  }
  if (done < length) {
    const to = payload + done;
    fourBlocks(key, low, high, counter, LAST, STORE, absorbed, to, 32);
    applyStream(to, LAST, length - done);
    absorbed = to;
  }
  const rest = length & 15;
  const whole = payload + (length - rest);
  absorb(absorbed, whole);
  finish(whole, rest, length);
}

/** Decrypts four blocks while Poly1305 takes in the same four, and before them those under FIRST. */
function openFour(message: usize, payload: usize, length: i32): void {
  const key = load<usize>(message, MESSAGE_KEY);
  const low = load<i32>(message, MESSAGE_COUNTER_LOW);
  const high = load<i32>(message, MESSAGE_COUNTER_HIGH);
  fourBlocks(key, low, high, 0, FIRST, STORE, 0, 0, 0);
  start(FIRST);
  const rest = length & 15;
  const whole = payload + (length - rest);
  let done = min(length, FIRST_BYTES);
  let absorbed = payload;
  let counter = 4;
  for (; done + FOUR_BYTES <= length; done += FOUR_BYTES, counter += 4) {
    const to = payload + done;
    const end = to + FOUR_BYTES;
    fourBlocks(key, low, high, counter, to, XOR, absorbed, end, perDoubleRound(end - absorbed));
    absorbed = end;
  }
  if (done < length) {
    fourBlocks(
      key,
      low,
      high,
      counter,
      LAST,
      STORE,
      absorbed,
      whole,
      perDoubleRound(whole - absorbed),
    );
    absorbed = whole;
  }
  absorb(absorbed, whole);
  finish(whole, rest, length);
  if (done < length) applyStream(payload + done, LAST, length - done);
  applyStream(payload, FIRST + 64, min(length, FIRST_BYTES));
}

/** Returns how many bytes of whole blocks each of ten double rounds takes in, so that none is left. */
function perDoubleRound(length: usize): usize {
  return ((length + 159) / 160) * 16;
}

function sealPlain(message: usize, payload: usize, length: i32): void {
  oneTimeKey(message);
  encryptPlain(message, payload, length);
  authenticatePlain(payload, length);
}

function openPlain(message: usize, payload: usize, length: i32): void {
  oneTimeKey(message);
  authenticatePlain(payload, length);
  if (isTag(payload + length)) encryptPlain(message, payload, length);
}

function oneTimeKey(message: usize): void {
  plainBlock(message, 0);
  start(FIRST);
}

function authenticatePlain(payload: usize, length: i32): void {
  const rest = length & 15;
  const whole = payload + (length - rest);
  absorb(payload, whole);
  finish(whole, rest, length);
}

function encryptPlain(message: usize, payload: usize, length: i32): void {
  let counter = 1;
  for (let done = 0; done < length; done += 64, counter++) {
    plainBlock(message, counter);
    applyStream(payload + done, FIRST, min(64, length - done));
  }
}

function plainBlock(message: usize, counter: i32): void {
  const key = load<usize>(message, MESSAGE_KEY);
  const low = load<i32>(message, MESSAGE_COUNTER_LOW);
  const high = load<i32>(message, MESSAGE_COUNTER_HIGH);
  oneBlock(key, low, high, counter, FIRST);
}

function applyStream(to: usize, stream: usize, length: i32): void {
  let i = 0;
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
