/*
 * Batches of packets and datagrams between the kernel and one block of memory. Every offset and length
 * of a record is checked: a wrong one gets -EINVAL as its result.
 *
 * Where glibc and musl differ in a structure or make something else of a call (musl's sendmmsg sends
 * one by one), the kernel's structures are declared here and the call is made with syscall(2).
 */

#define _GNU_SOURCE
#include "culvert.h"
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
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

#define MOST_MESSAGES 64 /* of one recvmmsg or sendmmsg; bounds the stack */
#define MOST_IOVECS 1024 /* UIO_MAXIOV of the kernel */
#define LONGEST_WAIT 1000

/* <linux/udp.h>; older C libraries lack them. */
#define SOL_UDP_LEVEL 17
#define UDP_SEGMENT_OPTION 103
#define UDP_GRO_OPTION 104

/* Packets of the TUN --------------------------------------------------------------------------- */

long read_batch(int fd, struct bytes arena, uint32_t into, uint32_t end, uint32_t table,
                uint32_t most) {
  if (into > end || end > arena.length || !holds(arena, table, most, READ_SIZE)) return -EINVAL;

  uint32_t count = 0;
  uint64_t next = into; /* 64 bits, so that aligning cannot wrap */
  while (count < most) {
    /* The IP packet, which follows the virtio-net header, is aligned for vector loads. */
    uint64_t offset = ((next + VNET_HEADER_SIZE + 15) & ~(uint64_t)15) - VNET_HEADER_SIZE;
    if (offset + LARGEST_READ > end) break;
    long length = read(fd, arena.data + offset, LARGEST_READ);
    if (length < 0 && errno == EINTR) continue;
    /* An error after the first packet shows again at the next call. */
    if (length < 0 && errno != EAGAIN && count == 0) return -errno;
    if (length <= 0) break;
    uint8_t *record = arena.data + table + count * READ_SIZE;
    store(record + READ_OFFSET, (uint32_t)offset);
    store(record + READ_LENGTH, (uint32_t)length);
    next = offset + (uint64_t)length;
    count++;
  }
  return (long)count;
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

long write_batch(int fd, struct bytes arena, uint32_t table, uint32_t count) {
  if (!holds(arena, table, count, WRITE_SIZE)) return -EINVAL;

  uint32_t written = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *record = arena.data + table + i * WRITE_SIZE;
    int result = write_packet(fd, arena, load(record + WRITE_IOVECS), load(record + WRITE_COUNT));
    store(record + WRITE_RESULT, (uint32_t)result);
    if (result == 0) written++;
  }
  return (long)written;
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

/* One recvmmsg of up to `most` datagrams, each into LARGEST_TRAIN bytes; returns their number. */
static long receive_some(int fd, struct bytes arena, uint32_t into, uint8_t *records,
                         uint32_t most) {
  struct message messages[MOST_MESSAGES];
  struct iovec buffers[MOST_MESSAGES];
  union control_buffer controls[MOST_MESSAGES];
  uint8_t remotes[MOST_MESSAGES][REMOTE_SIZE];
  uint32_t count = most < MOST_MESSAGES ? most : MOST_MESSAGES;

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
  if (received < 0) return errno == EAGAIN ? 0 : -errno;

  for (uint32_t i = 0; i < (uint32_t)received; i++) {
    uint8_t *record = records + i * DATAGRAM_SIZE;
    memset(record, 0, DATAGRAM_SIZE);
    store(record + DATAGRAM_OFFSET, into + i * LARGEST_TRAIN);
    store(record + DATAGRAM_LENGTH, messages[i].length);
    memcpy(record + DATAGRAM_REMOTE, remotes[i], REMOTE_SIZE);
    read_control(record, &messages[i]);
  }
  return received;
}

/* Moves what was received together, each aligned as its buffer was; returns where it ends. */
static uint32_t move_together(struct bytes arena, uint32_t into, uint8_t *records, uint32_t count) {
  uint32_t next = into;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *record = records + i * DATAGRAM_SIZE;
    uint32_t offset = load(record + DATAGRAM_OFFSET), length = load(record + DATAGRAM_LENGTH);
    if (offset != next) memmove(arena.data + next, arena.data + offset, length);
    store(record + DATAGRAM_OFFSET, next);
    next += (length + 15) & ~(uint32_t)15;
  }
  return next;
}

static uint32_t bytes_in(const uint8_t *records, uint32_t count) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += load(records + i * DATAGRAM_SIZE + DATAGRAM_LENGTH);
  return sum;
}

long receive_batch(int fd, struct bytes arena, uint32_t into, uint32_t end, uint32_t table,
                   uint32_t most) {
  if (into > end || end > arena.length || !holds(arena, table, most, DATAGRAM_SIZE))
    return -EINVAL;

  /*
   * Every buffer must take a train. Where single datagrams come instead, which fill little of it, they
   * are moved together and more are taken, until they are as much as one train.
   */
  uint32_t count = 0, next = into, sum = 0;
  for (;;) {
    uint32_t room = (end - next) / LARGEST_TRAIN;
    uint32_t wanted = most - count < room ? most - count : room;
    if (wanted == 0) break;
    uint8_t *records = arena.data + table + count * DATAGRAM_SIZE;
    long received = receive_some(fd, arena, next, records, wanted);
    if (received < 0 && count == 0) return received;
    if (received <= 0) break;
    count += (uint32_t)received;
    sum += bytes_in(records, (uint32_t)received);
    if ((uint32_t)received < wanted || sum >= LARGEST_TRAIN) break;
    next = move_together(arena, next, records, (uint32_t)received);
  }
  return (long)count;
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

long send_batch(struct bytes arena, uint32_t table, uint32_t count, int wait_ms) {
  if (wait_ms < 0 || !holds(arena, table, count, SEND_SIZE)) return -EINVAL;

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
  return (long)sent;
}
