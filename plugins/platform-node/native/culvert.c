/*
 * The system calls that Node.js lacks: raw sockets of any family, ioctl, batches of packets and
 * datagrams that go between the kernel and one block of memory (batch.c), and batches of messages for
 * the OpenSSL of node (aead.c). It implements the interface `Native` of core/plugin/native.ts, which
 * documents each call. There is no policy here, and no state but the watches.
 *
 * One binary per processor serves glibc and musl: it links nothing (-nostdlib), takes what it needs
 * from the node process, and passes only integers and byte ranges across N-API, so that the floating
 * point calling convention does not matter.
 *
 * Every offset and length that comes from JavaScript is checked: a wrong argument makes the call
 * return -EINVAL, and memory outside of the given buffers is never read or written.
 */

#define _GNU_SOURCE
#include "culvert.h"
#include <errno.h>
#include <fcntl.h>
#include <node_api.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST_IOCTL 256 /* more than any structure of the requests we make */
#define LARGEST_VALUE 4095

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

/* Batches of packets and datagrams ------------------------------------------------------------- */

static napi_value native_read_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t into = take_unsigned(&call), end = take_unsigned(&call);
  uint32_t table = take_unsigned(&call), most = take_unsigned(&call);
  if (call.wrong) return wrong_arguments(env);
  return integer(env, read_batch(fd, arena, into, end, table, most));
}

static napi_value native_write_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t table = take_unsigned(&call), count = take_unsigned(&call);
  if (call.wrong) return wrong_arguments(env);
  return integer(env, write_batch(fd, arena, table, count));
}

static napi_value native_receive_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  int fd = take_integer(&call);
  struct bytes arena = take_arena(&call);
  uint32_t into = take_unsigned(&call), end = take_unsigned(&call);
  uint32_t table = take_unsigned(&call), most = take_unsigned(&call);
  if (call.wrong) return wrong_arguments(env);
  return integer(env, receive_batch(fd, arena, into, end, table, most));
}

static napi_value native_send_batch(napi_env env, napi_callback_info info) {
  struct call call = begin(env, info);
  struct bytes arena = take_arena(&call);
  uint32_t table = take_unsigned(&call), count = take_unsigned(&call);
  int wait_ms = take_integer(&call);
  if (call.wrong) return wrong_arguments(env);
  return integer(env, send_batch(arena, table, count, wait_ms));
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
