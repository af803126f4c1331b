/*
 * The system calls that Node.js lacks: raw sockets of any family, ioctl, and batches of packets and
 * datagrams that go between the kernel and one block of memory; and batches of messages for the
 * OpenSSL of node (aead.c). It implements the interface `Native` of core/plugin/native.ts, which
 * documents each call. There is no policy here, and no state but the watches.
 *
 * One binary per processor serves glibc and musl: it links nothing (-nostdlib), takes what it needs
 * from the node process, and passes only integers and byte ranges across N-API, so that the floating
 * point calling convention does not matter. Where the two C libraries differ in a structure or make
 * something else of a call (musl's sendmmsg sends one by one), the kernel's structures are declared
 * here and the call is made with syscall(2).
 *
 * Every offset and length that comes from JavaScript is checked: a wrong argument makes the call
 * return -EINVAL, a wrong record gets -EINVAL as its result, and memory outside of the given buffers
 * is never read or written.
 */

#define _GNU_SOURCE
#include "culvert.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <node_api.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* core/fastpath/layout.ts; a test compares the numbers. */
#define READ_SIZE 8
#define READ_OFFSET 0
#define READ_LENGTH 4
#define WRITE_SIZE 16
#define WRITE_IOVECS 0
#define WRITE_COUNT 4
#define WRITE_RESULT 8
#define IOVEC_SIZE 8
#define DATAGRAM_SIZE 64
#define DATAGRAM_OFFSET 0
#define DATAGRAM_LENGTH 4
#define DATAGRAM_SEGMENT 8
#define DATAGRAM_TOS 12
#define DATAGRAM_REMOTE 16
#define DATAGRAM_LOCAL 44
#define DATAGRAM_IFINDEX 60
#define PATH_SIZE 64
#define PATH_FD 0
#define PATH_REMOTE_LENGTH 4
#define PATH_REMOTE 8
#define PATH_LOCAL 36
#define PATH_IFINDEX 52
#define SEND_SIZE 32
#define SEND_OFFSET 0
#define SEND_LENGTH 4
#define SEND_SEGMENT 8
#define SEND_SPLIT 0x10000
#define SEND_PATH 12
#define SEND_TOS 16
#define SEND_RESULT 20
#define VNET_HEADER_SIZE 10
#define LARGEST_READ 65552
#define LARGEST_TRAIN 65536

#define REMOTE_SIZE (PATH_LOCAL - PATH_REMOTE) /* sockaddr_in6 */
#define LOCAL_SIZE 16

#define MOST_MESSAGES 64  /* of one recvmmsg or sendmmsg; bounds the stack */
#define MOST_IOVECS 1024  /* UIO_MAXIOV of the kernel */
#define LARGEST_IOCTL 256 /* more than any structure of the requests we make */
#define LARGEST_VALUE 4095
#define LONGEST_WAIT 1000

/* <linux/udp.h>; older C libraries lack them. */
#define SOL_UDP_LEVEL 17
#define UDP_SEGMENT_OPTION 103
#define UDP_GRO_OPTION 104

/* Arguments and results ------------------------------------------------------------------------ */

/* The arguments of a call, taken in order. `wrong` is set by the first one that does not fit. */
struct call {
  napi_env env;
  napi_value arguments[6];
  unsigned next;
  int wrong;
};

static struct call begin(napi_env env, napi_callback_info info) {
  struct call call = {.env = env};
  size_t count = 6;
  if (napi_get_cb_info(env, info, &count, call.arguments, NULL, NULL) != napi_ok) call.wrong = 1;
  return call;
}

static int32_t take_integer(struct call *call) {
  int32_t value = 0;
  if (napi_get_value_int32(call->env, call->arguments[call->next++], &value) != napi_ok)
    call->wrong = 1;
  return value;
}

static uint32_t take_unsigned(struct call *call) {
  uint32_t value = 0;
  if (napi_get_value_uint32(call->env, call->arguments[call->next++], &value) != napi_ok)
    call->wrong = 1;
  return value;
}

static struct bytes take_bytes(struct call *call) {
  struct bytes bytes = {0};
  void *data = NULL;
  napi_typedarray_type type = napi_int8_array;
  napi_status status = napi_get_typedarray_info(call->env, call->arguments[call->next++], &type,
                                                &bytes.length, &data, NULL, NULL);
  if (status != napi_ok || type != napi_uint8_array) call->wrong = 1;
  bytes.data = data;
  return bytes;
}

static struct bytes take_arena(struct call *call) {
  struct bytes bytes = {0};
  void *data = NULL;
  if (napi_get_arraybuffer_info(call->env, call->arguments[call->next++], &data, &bytes.length) !=
      napi_ok)
    call->wrong = 1;
  bytes.data = data;
  return bytes;
}

static napi_value integer(napi_env env, long value) {
  napi_value result = NULL;
  napi_create_int32(env, (int32_t)value, &result);
  return result;
}

/* What a system call returned, or the negative errno. */
static napi_value outcome(napi_env env, long value) {
  return integer(env, value < 0 ? -errno : value);
}

static napi_value wrong_arguments(napi_env env) { return integer(env, -EINVAL); }

/* What belongs to one JavaScript environment (the main thread, or a worker). */
struct instance {
  napi_env env;
  struct watch *first_watch;
  int last_watch;
  struct aead *aead; /* made at the first call that needs it */
};

static struct instance *instance_of(napi_env env) {
  void *instance = NULL;
  return napi_get_instance_data(env, &instance) == napi_ok ? instance : NULL;
}

/* Plain calls ---------------------------------------------------------------------------------- */

static napi_value native_socket(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int domain = take_integer(&call), type = take_integer(&call), protocol = take_integer(&call);
  if (call.wrong) return wrong_arguments(env);
  return outcome(env, socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
}

static napi_value native_bind(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes address = take_bytes(&call);
  if (call.wrong) return wrong_arguments(env);
  return outcome(env, bind(fd, (struct sockaddr *)address.data, (socklen_t)address.length));
}

/* Copies an address that the kernel gave, as much of it as fits, and clears the rest. */
static void give_address(struct bytes into, const void *address, size_t length) {
  size_t fitting = length < into.length ? length : into.length;
  if (into.length == 0) return;
  memcpy(into.data, address, fitting);
  memset(into.data + fitting, 0, into.length - fitting);
}

static napi_value native_getsockname(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes address = take_bytes(&call);
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if (call.wrong) return wrong_arguments(env);
  if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) return integer(env, -errno);
  if (length > sizeof name) length = sizeof name;
  give_address(address, &name, length);
  return integer(env, length);
}

static napi_value native_set_option(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call), level = take_integer(&call), name = take_integer(&call);
  int value = take_integer(&call);
  if (call.wrong) return wrong_arguments(env);
  return outcome(env, setsockopt(fd, level, name, &value, sizeof value));
}

static napi_value native_set_option_bytes(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call), level = take_integer(&call), name = take_integer(&call);
  struct bytes value = take_bytes(&call);
  if (call.wrong) return wrong_arguments(env);
  return outcome(env, setsockopt(fd, level, name, value.data, (socklen_t)value.length));
}

static napi_value native_get_option(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call), level = take_integer(&call), name = take_integer(&call);
  int value = 0;
  socklen_t length = sizeof value;
  if (call.wrong) return wrong_arguments(env);
  if (getsockopt(fd, level, name, &value, &length) < 0) return integer(env, -errno);
  return integer(env, value);
}

static napi_value native_open(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  char path[256];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, call.arguments[0], path, sizeof path, &length) != napi_ok)
    return wrong_arguments(env);
  if (length == sizeof path - 1) return integer(env, -ENAMETOOLONG);
  return outcome(env, open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK));
}

/*
 * The kernel reads and writes as many bytes as the request says, whatever we hand it, so it works on
 * a copy. An argument by value is below one page, where nothing is mapped: a request that takes it
 * for a pointer gets EFAULT.
 */
static napi_value native_ioctl(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  uint32_t request = take_unsigned(&call), value = 0;
  if (!call.wrong && napi_get_value_uint32(env, call.arguments[2], &value) == napi_ok) {
    if (value > LARGEST_VALUE) return wrong_arguments(env);
    return outcome(env, ioctl(fd, request, (unsigned long)value));
  }
  struct bytes argument = take_bytes(&call);
  union {
    uint8_t bytes[LARGEST_IOCTL];
    uint64_t aligned;
  } copy = {0};
  if (call.wrong || argument.length > sizeof copy.bytes) return wrong_arguments(env);
  if (argument.length > 0) memcpy(copy.bytes, argument.data, argument.length);
  long result = ioctl(fd, request, copy.bytes);
  if (result < 0) return integer(env, -errno);
  if (argument.length > 0) memcpy(argument.data, copy.bytes, argument.length);
  return integer(env, result);
}

static napi_value native_close(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  if (call.wrong) return wrong_arguments(env);
  return outcome(env, close(fd));
}

static napi_value native_send(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes bytes = take_bytes(&call);
  long sent;
  if (call.wrong) return wrong_arguments(env);
  do sent = send(fd, bytes.data, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return outcome(env, sent);
}

static napi_value native_receive(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes bytes = take_bytes(&call), from = take_bytes(&call);
  struct sockaddr_storage name;
  socklen_t length;
  long received;
  if (call.wrong) return wrong_arguments(env);
  do {
    length = sizeof name;
    received = recvfrom(fd, bytes.data, bytes.length, MSG_DONTWAIT, (struct sockaddr *)&name,
                        &length);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return integer(env, -errno);
  give_address(from, &name, length < sizeof name ? length : sizeof name);
  return integer(env, received);
}

/* Packets of the TUN --------------------------------------------------------------------------- */

static napi_value native_read_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t into = take_unsigned(&call), end = take_unsigned(&call);
  uint32_t table = take_unsigned(&call), most = take_unsigned(&call);
  if (call.wrong || into > end || end > arena.length || !holds(arena, table, most, READ_SIZE))
    return wrong_arguments(env);

  uint32_t count = 0;
  uint64_t next = into; /* 64 bits, so that aligning cannot wrap */
  while (count < most) {
    /* The IP packet, which follows the virtio-net header, is aligned for vector loads. */
    uint64_t offset = ((next + VNET_HEADER_SIZE + 15) & ~(uint64_t)15) - VNET_HEADER_SIZE;
    if (offset + LARGEST_READ > end) break;
    long length = read(fd, arena.data + offset, LARGEST_READ);
    if (length < 0 && errno == EINTR) continue;
    /* An error after the first packet shows again at the next call. */
    if (length < 0 && errno != EAGAIN && count == 0) return integer(env, -errno);
    if (length <= 0) break;
    uint8_t *record = arena.data + table + count * READ_SIZE;
    store(record + READ_OFFSET, (uint32_t)offset);
    store(record + READ_LENGTH, (uint32_t)length);
    next = offset + (uint64_t)length;
    count++;
  }
  return integer(env, count);
}

/* Writes one packet; returns 0 or the negative errno. */
static int write_packet(int fd, struct bytes arena, uint32_t table, uint32_t count) {
  struct iovec pieces[MOST_IOVECS];
  if (count == 0 || count > MOST_IOVECS || !holds(arena, table, count, IOVEC_SIZE)) return -EINVAL;
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *piece = arena.data + table + i * IOVEC_SIZE;
    uint32_t offset = load(piece), length = load(piece + 4);
    if (!holds(arena, offset, length, 1)) return -EINVAL;
    pieces[i] = (struct iovec){arena.data + offset, length};
  }
  while (writev(fd, pieces, (int)count) < 0)
    if (errno != EINTR) return -errno;
  return 0;
}

static napi_value native_write_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t table = take_unsigned(&call), count = take_unsigned(&call);
  if (call.wrong || !holds(arena, table, count, WRITE_SIZE)) return wrong_arguments(env);

  uint32_t written = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *record = arena.data + table + i * WRITE_SIZE;
    int result = write_packet(fd, arena, load(record + WRITE_IOVECS), load(record + WRITE_COUNT));
    store(record + WRITE_RESULT, (uint32_t)result);
    if (result == 0) written++;
  }
  return integer(env, written);
}

/* Datagrams ------------------------------------------------------------------------------------ */

/* struct mmsghdr and struct cmsghdr as the kernel has them; musl's differ on 64-bit machines. */
struct message {
  struct {
    void *name;
    int name_length;
    struct iovec *pieces;
    size_t piece_count;
    void *control;
    size_t control_length;
    unsigned flags;
  } header;
  unsigned length;
};

struct control {
  size_t length;
  int level;
  int type;
};

#define CONTROL_ALIGN(length) (((length) + sizeof(size_t) - 1) & ~(sizeof(size_t) - 1))
#define CONTROL_SPACE(length) (CONTROL_ALIGN(sizeof(struct control)) + CONTROL_ALIGN(length))
#define CONTROL_DATA(control) ((uint8_t *)((control) + 1))
/* Three integers at most and one packet info; IP_RECVERR and time stamps are never switched on. */
#define CONTROL_SIZE (3 * CONTROL_SPACE(sizeof(int)) + CONTROL_SPACE(sizeof(struct in6_pktinfo)))

union control_buffer {
  struct control first; /* aligns it */
  uint8_t bytes[CONTROL_SIZE];
};

/* Fills a datagram record from the control messages that came with it. */
static void read_control(uint8_t *record, const struct message *message) {
  uint8_t *at = message->header.control;
  size_t left = message->header.control_length;
  while (left >= sizeof(struct control)) {
    struct control *control = (struct control *)at;
    if (control->length < sizeof *control || control->length > left) return;
    const uint8_t *data = CONTROL_DATA(control);
    size_t length = control->length - sizeof *control;
    if (control->level == SOL_UDP_LEVEL && control->type == UDP_GRO_OPTION && length >= 4) {
      store(record + DATAGRAM_SEGMENT, load(data));
    } else if (control->level == IPPROTO_IP && control->type == IP_TOS && length >= 1) {
      store(record + DATAGRAM_TOS, data[0]);
    } else if (control->level == IPPROTO_IPV6 && control->type == IPV6_TCLASS && length >= 4) {
      store(record + DATAGRAM_TOS, load(data) & 0xff);
    } else if (control->level == IPPROTO_IP && control->type == IP_PKTINFO &&
               length >= sizeof(struct in_pktinfo)) {
      /* ipi_spec_dst, not ipi_addr: the address of ours that answers, also for a broadcast. */
      memcpy(record + DATAGRAM_LOCAL, data + offsetof(struct in_pktinfo, ipi_spec_dst), 4);
      memcpy(record + DATAGRAM_IFINDEX, data + offsetof(struct in_pktinfo, ipi_ifindex), 4);
    } else if (control->level == IPPROTO_IPV6 && control->type == IPV6_PKTINFO &&
               length >= sizeof(struct in6_pktinfo)) {
      memcpy(record + DATAGRAM_LOCAL, data + offsetof(struct in6_pktinfo, ipi6_addr), LOCAL_SIZE);
      memcpy(record + DATAGRAM_IFINDEX, data + offsetof(struct in6_pktinfo, ipi6_ifindex), 4);
    }
    size_t step = CONTROL_ALIGN(control->length);
    if (step > left) return;
    at += step;
    left -= step;
  }
}

static napi_value native_receive_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t into = take_unsigned(&call), end = take_unsigned(&call);
  uint32_t table = take_unsigned(&call), most = take_unsigned(&call);
  if (call.wrong || into > end || end > arena.length || !holds(arena, table, most, DATAGRAM_SIZE))
    return wrong_arguments(env);

  struct message messages[MOST_MESSAGES];
  struct iovec buffers[MOST_MESSAGES];
  union control_buffer controls[MOST_MESSAGES];
  uint8_t remotes[MOST_MESSAGES][REMOTE_SIZE];
  uint32_t room = (end - into) / LARGEST_TRAIN;
  uint32_t count = most < room ? most : room;
  if (count > MOST_MESSAGES) count = MOST_MESSAGES;
  if (count == 0) return integer(env, 0);

  memset(messages, 0, count * sizeof *messages);
  memset(remotes, 0, count * sizeof *remotes);
  for (uint32_t i = 0; i < count; i++) {
    buffers[i] = (struct iovec){arena.data + into + i * LARGEST_TRAIN, LARGEST_TRAIN};
    messages[i].header.name = remotes[i];
    messages[i].header.name_length = REMOTE_SIZE;
    messages[i].header.pieces = &buffers[i];
    messages[i].header.piece_count = 1;
    messages[i].header.control = controls[i].bytes;
    messages[i].header.control_length = sizeof controls[i].bytes;
  }
  long received;
  do received = syscall(SYS_recvmmsg, fd, messages, count, MSG_DONTWAIT, NULL);
  while (received < 0 && errno == EINTR);
  if (received < 0) return integer(env, errno == EAGAIN ? 0 : -errno);

  for (uint32_t i = 0; i < (uint32_t)received; i++) {
    uint8_t *record = arena.data + table + i * DATAGRAM_SIZE;
    memset(record, 0, DATAGRAM_SIZE);
    store(record + DATAGRAM_OFFSET, into + i * LARGEST_TRAIN);
    store(record + DATAGRAM_LENGTH, messages[i].length);
    memcpy(record + DATAGRAM_REMOTE, remotes[i], REMOTE_SIZE);
    read_control(record, &messages[i]);
  }
  return integer(env, received);
}

/* The messages of one sendmmsg, with all that they point to. */
struct outgoing {
  struct message messages[MOST_MESSAGES];
  struct iovec payloads[MOST_MESSAGES];
  union control_buffer controls[MOST_MESSAGES];
  uint8_t remotes[MOST_MESSAGES][REMOTE_SIZE];
  uint8_t *records[MOST_MESSAGES];
  uint32_t count;
  int fd;
  int wait_ms;
};

static void add_control(struct message *message, int level, int type, const void *data,
                        size_t length) {
  uint8_t *at = (uint8_t *)message->header.control + message->header.control_length;
  struct control *control = (struct control *)at;
  memset(at, 0, CONTROL_SPACE(length));
  control->length = sizeof *control + length;
  control->level = level;
  control->type = type;
  memcpy(CONTROL_DATA(control), data, length);
  message->header.control_length += CONTROL_SPACE(length);
}

static void write_control(struct message *message, uint16_t segment, int tos, const uint8_t *path) {
  uint16_t family;
  memcpy(&family, path + PATH_REMOTE, sizeof family);
  int ipv6 = family == AF_INET6;
  if (segment != 0)
    add_control(message, SOL_UDP_LEVEL, UDP_SEGMENT_OPTION, &segment, sizeof segment);
  if (tos != 0)
    add_control(message, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_TCLASS : IP_TOS, &tos,
                sizeof tos);

  static const uint8_t unspecified[LOCAL_SIZE];
  uint32_t interface = load(path + PATH_IFINDEX);
  if (interface == 0 && memcmp(path + PATH_LOCAL, unspecified, LOCAL_SIZE) == 0) return;
  if (ipv6) {
    struct in6_pktinfo source;
    memcpy(&source.ipi6_addr, path + PATH_LOCAL, LOCAL_SIZE);
    source.ipi6_ifindex = interface;
    add_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &source, sizeof source);
  } else {
    struct in_pktinfo source = {.ipi_ifindex = (int)interface};
    memcpy(&source.ipi_spec_dst, path + PATH_LOCAL, 4);
    add_control(message, IPPROTO_IP, IP_PKTINFO, &source, sizeof source);
  }
}

/* Sends the batch, empties it, and sets the result of each record of which something failed. */
static void send_messages(struct outgoing *batch) {
  uint32_t next = 0;
  while (next < batch->count) {
    long sent = syscall(SYS_sendmmsg, batch->fd, batch->messages + next, batch->count - next,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      next += (uint32_t)sent;
      continue;
    }
    int error = sent < 0 ? errno : EIO;
    if (error == EINTR) continue;
    if (error == EAGAIN) {
      struct pollfd full = {.fd = batch->fd, .events = POLLOUT};
      int wait_ms = batch->wait_ms;
      batch->wait_ms = 0;
      if (wait_ms > 0 && poll(&full, 1, wait_ms) > 0) continue;
      while (next < batch->count) store(batch->records[next++] + SEND_RESULT, (uint32_t)-EAGAIN);
      break;
    }
    /* sendmmsg stops at the message that fails, and tells its error only when it is the first. What
       is left of a split train would fail as well. */
    uint8_t *record = batch->records[next];
    store(record + SEND_RESULT, (uint32_t)-error);
    while (next < batch->count && batch->records[next] == record) next++;
  }
  batch->count = 0;
}

static void add_message(struct outgoing *batch, uint8_t *record, struct iovec payload,
                        uint16_t segment, const uint8_t *path) {
  int fd = (int)load(path + PATH_FD);
  if (batch->count == MOST_MESSAGES || (batch->count > 0 && fd != batch->fd)) send_messages(batch);
  uint32_t i = batch->count++;
  struct message *message = &batch->messages[i];
  batch->fd = fd;
  batch->records[i] = record;
  batch->payloads[i] = payload;
  memcpy(batch->remotes[i], path + PATH_REMOTE, REMOTE_SIZE);
  memset(message, 0, sizeof *message);
  message->header.name = batch->remotes[i];
  message->header.name_length = (int)load(path + PATH_REMOTE_LENGTH);
  message->header.pieces = &batch->payloads[i];
  message->header.piece_count = 1;
  message->header.control = batch->controls[i].bytes;
  write_control(message, segment, (int)(load(record + SEND_TOS) & 0xff), path);
}

/* Adds what the record asks for to the batch; returns 0 or a negative errno. */
static int add_record(struct outgoing *batch, struct bytes arena, uint8_t *record) {
  uint32_t offset = load(record + SEND_OFFSET), length = load(record + SEND_LENGTH);
  uint32_t segment = load(record + SEND_SEGMENT), at = load(record + SEND_PATH);
  if (!holds(arena, offset, length, 1) || !holds(arena, at, 1, PATH_SIZE)) return -EINVAL;
  const uint8_t *path = arena.data + at;
  uint32_t train = segment & ~(uint32_t)SEND_SPLIT;
  if (length > LARGEST_TRAIN) return -EMSGSIZE;
  if (train > UINT16_MAX || load(path + PATH_REMOTE_LENGTH) > REMOTE_SIZE) return -EINVAL;
  uint8_t *payload = arena.data + offset;
  if (!(segment & SEND_SPLIT) || train == 0) {
    add_message(batch, record, (struct iovec){payload, length}, (uint16_t)train, path);
    return 0;
  }
  while (length > 0) {
    uint32_t piece = length < train ? length : train;
    add_message(batch, record, (struct iovec){payload, piece}, 0, path);
    payload += piece;
    length -= piece;
  }
  return 0;
}

static napi_value native_send_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  struct bytes arena = take_arena(&call);
  uint32_t table = take_unsigned(&call), count = take_unsigned(&call);
  int wait_ms = take_integer(&call);
  if (call.wrong || wait_ms < 0 || !holds(arena, table, count, SEND_SIZE))
    return wrong_arguments(env);

  struct outgoing batch;
  batch.count = 0;
  batch.wait_ms = wait_ms < LONGEST_WAIT ? wait_ms : LONGEST_WAIT;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *record = arena.data + table + i * SEND_SIZE;
    store(record + SEND_RESULT, 0);
    int refused = add_record(&batch, arena, record);
    if (refused < 0) store(record + SEND_RESULT, (uint32_t)refused);
  }
  send_messages(&batch);

  uint32_t sent = 0;
  for (uint32_t i = 0; i < count; i++)
    if (load(arena.data + table + i * SEND_SIZE + SEND_RESULT) == 0) sent++;
  return integer(env, sent);
}

/* Transport messages --------------------------------------------------------------------------- */

static napi_value work_through(napi_env env, napi_callback_info info,
                               uint32_t (*work)(struct aead *, struct bytes, uint32_t, uint32_t)) {
  struct call call = begin(env, info);
  struct bytes arena = take_arena(&call);
  uint32_t first = take_unsigned(&call), count = take_unsigned(&call);
  struct instance *instance = instance_of(env);
  if (call.wrong || instance == NULL || !holds(arena, first, count, MESSAGE_SIZE))
    return wrong_arguments(env);
  if (instance->aead == NULL) instance->aead = aead_new();
  if (instance->aead == NULL) return integer(env, -ENOSYS);
  return integer(env, work(instance->aead, arena, first, count));
}

static napi_value native_aead_seal(napi_env env, napi_callback_info info) {
  return work_through(env, info, aead_seal);
}

static napi_value native_aead_open(napi_env env, napi_callback_info info) {
  return work_through(env, info, aead_open);
}

/* Watches -------------------------------------------------------------------------------------- */

/* What we use of libuv, whose headers are not at hand where this is compiled. */
typedef struct uv_loop_s uv_loop_t;
typedef void uv_poll_t;
#define UV_POLL 8
#define UV_READABLE 1
size_t uv_handle_size(int type);
void *uv_handle_get_data(const void *handle);
void uv_handle_set_data(void *handle, void *data);
int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd);
int uv_poll_start(uv_poll_t *handle, int events, void (*on_event)(uv_poll_t *, int, int));
void uv_close(void *handle, void (*on_closed)(void *));

struct watch {
  struct watch *following;
  struct instance *owner;
  napi_ref on_ready;
  int id;
  uv_poll_t *handle;
};

static void on_event(uv_poll_t *handle, int status, int events) {
  struct watch *watch = uv_handle_get_data(handle);
  napi_env env = watch->owner->env;
  napi_handle_scope scope;
  napi_value on_ready, receiver, exception;
  (void)events;
  /* libuv stops polling when the kernel signals an error, such as an overrun of a netlink socket.
     The error is read, and cleared, by the next call on the descriptor. */
  if (status < 0) uv_poll_start(handle, UV_READABLE, on_event);
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_reference_value(env, watch->on_ready, &on_ready) == napi_ok &&
      napi_get_global(env, &receiver) == napi_ok &&
      /* `watch` may be gone after this: the callback is free to call unwatch. */
      napi_make_callback(env, NULL, receiver, on_ready, 0, NULL, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &exception) == napi_ok)
    napi_fatal_exception(env, exception);
  napi_close_handle_scope(env, scope);
}

static void on_closed(void *handle) { free(handle); }

/* Ends the watch at `*link`. libuv still uses the handle until it calls on_closed. */
static void end_watch(struct watch **link) {
  struct watch *watch = *link;
  *link = watch->following;
  napi_delete_reference(watch->owner->env, watch->on_ready);
  uv_close(watch->handle, on_closed);
  free(watch);
}

static napi_value native_watch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  napi_value on_ready = call.arguments[1];
  napi_valuetype type = napi_undefined;
  struct instance *owner = instance_of(env);
  uv_loop_t *loop = NULL;
  if (call.wrong || fd < 0 || napi_typeof(env, on_ready, &type) != napi_ok ||
      type != napi_function || owner == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok)
    return wrong_arguments(env);

  struct watch *watch = calloc(1, sizeof *watch);
  uv_poll_t *handle = calloc(1, uv_handle_size(UV_POLL));
  int error = -ENOMEM;
  if (watch == NULL || handle == NULL) goto refused;
  error = uv_poll_init(loop, handle, fd); /* libuv's errors are negative errno values */
  if (error < 0) goto refused;
  if (napi_create_reference(env, on_ready, 1, &watch->on_ready) != napi_ok) {
    uv_close(handle, on_closed);
    handle = NULL;
    error = -ENOMEM;
    goto refused;
  }
  watch->owner = owner;
  watch->id = ++owner->last_watch;
  watch->handle = handle;
  watch->following = owner->first_watch;
  owner->first_watch = watch;
  uv_handle_set_data(handle, watch);
  error = uv_poll_start(handle, UV_READABLE, on_event);
  if (error < 0) {
    end_watch(&owner->first_watch);
    return integer(env, error);
  }
  return integer(env, watch->id);

refused:
  free(handle);
  free(watch);
  return integer(env, error);
}

static napi_value native_unwatch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int id = take_integer(&call);
  struct instance *owner = instance_of(env);
  if (call.wrong || owner == NULL) return wrong_arguments(env);
  for (struct watch **link = &owner->first_watch; *link != NULL; link = &(*link)->following) {
    if ((*link)->id != id) continue;
    end_watch(link);
    return integer(env, 0);
  }
  return integer(env, -ENOENT);
}

/* A worker that ends must leave no open handle in its loop. */
static void on_environment_end(void *data) {
  struct instance *instance = data;
  while (instance->first_watch != NULL) end_watch(&instance->first_watch);
}

static void on_instance_end(napi_env env, void *data, void *hint) {
  struct instance *instance = data;
  (void)env;
  (void)hint;
  aead_free(instance->aead);
  free(instance);
}

/* The module ----------------------------------------------------------------------------------- */

NAPI_MODULE_INIT() {
  static const struct {
    const char *name;
    napi_callback function;
  } calls[] = {
      {"socket", native_socket},
      {"bind", native_bind},
      {"getsockname", native_getsockname},
      {"setOption", native_set_option},
      {"setOptionBytes", native_set_option_bytes},
      {"getOption", native_get_option},
      {"open", native_open},
      {"ioctl", native_ioctl},
      {"close", native_close},
      {"send", native_send},
      {"receive", native_receive},
      {"readBatch", native_read_batch},
      {"writeBatch", native_write_batch},
      {"receiveBatch", native_receive_batch},
      {"sendBatch", native_send_batch},
      {"aeadSeal", native_aead_seal},
      {"aeadOpen", native_aead_open},
      {"watch", native_watch},
      {"unwatch", native_unwatch},
  };
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    napi_value function;
    if (napi_create_function(env, calls[i].name, NAPI_AUTO_LENGTH, calls[i].function, NULL,
                             &function) != napi_ok ||
        napi_set_named_property(env, exports, calls[i].name, function) != napi_ok)
      return NULL;
  }
  struct instance *instance = calloc(1, sizeof *instance);
  if (instance == NULL) return NULL;
  instance->env = env;
  if (napi_set_instance_data(env, instance, on_instance_end, NULL) != napi_ok ||
      napi_add_env_cleanup_hook(env, on_environment_end, instance) != napi_ok)
    return NULL;
  return exports;
}
