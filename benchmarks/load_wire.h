/* The client's half of RFC 6455 on epoll: handshake, masked text frames, pong, close. Knows no scenario: a whole text frame is
 * handed to `on_text`. Frames in fragments and extensions are refused, since no server of the benchmark sends them. */
#ifndef LOAD_WIRE_H
#define LOAD_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "load_measure.h"

#define CONNECTIONS_PER_ADDRESS 20000 /* fewer than the ephemeral ports of one source address */
#define READ_BYTES (256 * 1024)
#define WHOLE_BUFFER SIZE_MAX

typedef enum { CONNECTING, UPGRADING, OPEN, CLOSED } phase_t;

typedef struct conn {
  int fd, index;
  phase_t phase;
  bool greeted;       /* CONNECT has come */
  bool wants_room;    /* epoll watches for EPOLLOUT */
  bool by_hand;       /* not watched by epoll: its scenario reads it at its own pace */
  uint8_t *kept;      /* the beginning of a frame that is not whole yet */
  size_t kept_len;
  uint8_t *out;       /* frames that the socket has not taken */
  size_t out_len, out_room;
  uint64_t sent, answered; /* operations published; ACK or NACK that came back */
  uint64_t position;       /* number of the last operation seen, see load.c */
  uint64_t opened_ns;
} conn_t;

/* What the scenario supplies. */
typedef void on_text_t(conn_t *c, const char *text, size_t length);

static struct wire {
  int epoll_fd, port;
  on_text_t *on_text;
  conn_t *conns;
  int conn_count;
  int opening, upgraded, greeted, closed; /* how many connections are, or ever were, in that phase */
  int first_close_code;
  uint64_t bytes_in, pongs;
  uint8_t *scratch;
  size_t scratch_room;
} wire;

static inline void watch(conn_t *c, int what, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (!c->by_hand) epoll_ctl(wire.epoll_fd, what, c->fd, &event);
}

static inline void conn_close(conn_t *c, int code) {
  if (c->phase == CLOSED) return;
  if (c->phase != OPEN) wire.opening--;
  c->phase = CLOSED;
  close(c->fd);
  if (!wire.closed++) wire.first_close_code = code;
}

/* ---- out ---- */

static inline void flush(conn_t *c) {
  if (c->phase == CLOSED) return;
  size_t done = 0;
  while (done < c->out_len) {
    ssize_t n = send(c->fd, c->out + done, c->out_len - done, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN) {
        conn_close(c, 1006);
        return;
      }
      break;
    }
    done += (size_t)n;
  }
  memmove(c->out, c->out + done, c->out_len - done);
  c->out_len -= done;
  bool waits = c->out_len > 0;
  if (waits != c->wants_room) {
    c->wants_room = waits;
    watch(c, EPOLL_CTL_MOD, EPOLLIN | (waits ? EPOLLOUT : 0u));
  }
}

static inline uint8_t *reserve(conn_t *c, size_t bytes) {
  if (c->out_len + bytes > c->out_room) {
    c->out_room = (c->out_len + bytes) * 2;
    c->out = grown(c->out, c->out_room);
  }
  return c->out + c->out_len;
}

static inline uint32_t next_mask(void) { /* xorshift: a mask need not be secret here, only not always the same */
  static uint32_t x = 0x9e3779b9u;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return x;
}

/* Appends one masked frame (RFC 6455 section 5.2); `flush` sends it. */
static inline void put_frame(conn_t *c, int opcode, const void *body, size_t length) {
  uint8_t *p = reserve(c, length + 14), *start = p;
  *p++ = (uint8_t)(0x80 | opcode);
  if (length < 126) {
    *p++ = (uint8_t)(0x80 | length);
  } else if (length < 65536) {
    *p++ = 0x80 | 126;
    *p++ = (uint8_t)(length >> 8);
    *p++ = (uint8_t)length;
  } else {
    *p++ = 0x80 | 127;
    for (int shift = 56; shift >= 0; shift -= 8) *p++ = (uint8_t)((uint64_t)length >> shift);
  }
  uint8_t mask[4];
  uint32_t bits = next_mask();
  memcpy(mask, &bits, 4);
  memcpy(p, mask, 4);
  p += 4;
  const uint8_t *from = body;
  for (size_t i = 0; i < length; i++) p[i] = from[i] ^ mask[i & 3];
  c->out_len += (size_t)(p - start) + length;
}

/* ---- in ---- */

static inline void take_frame(conn_t *c, int opcode, const uint8_t *body, size_t length) {
  if (opcode == 1) {
    wire.on_text(c, (const char *)body, length);
  } else if (opcode == 9) {
    wire.pongs++;
    put_frame(c, 10, body, length);
  } else if (opcode == 8) {
    conn_close(c, length >= 2 ? body[0] << 8 | body[1] : 1005);
  }
}

/* Every whole frame at the beginning of `p`; returns how many bytes they took. */
static inline size_t take_frames(conn_t *c, const uint8_t *p, size_t length) {
  size_t at = 0;
  while (c->phase == OPEN && length - at >= 2) {
    const uint8_t *h = p + at;
    size_t left = length - at, body = h[1] & 127, head = 2;
    if ((h[0] & 0x70) || !(h[0] & 0x80) || (h[1] & 0x80)) die("a frame with extensions, in fragments, or masked by the server");
    if (body == 126) {
      if (left < 4) break;
      body = (size_t)(h[2] << 8 | h[3]);
      head = 4;
    } else if (body == 127) {
      if (left < 10) break;
      body = 0;
      for (int i = 2; i < 10; i++) body = body << 8 | h[i];
      head = 10;
    }
    if (left < head + body) break;
    take_frame(c, h[0] & 15, h + head, body);
    at += head + body;
  }
  return at;
}

/* The answer to the upgrade; returns how many bytes it took, 0 while it is not whole. */
static inline size_t take_upgrade(conn_t *c, const uint8_t *p, size_t length) {
  const uint8_t *end = memmem(p, length, "\r\n\r\n", 4);
  if (!end) return 0;
  if (length < 12 || memcmp(p + 9, "101", 3) || !memmem(p, length, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)) {
    fprintf(stderr, "load: refused: %.*s\n", (int)(length > 300 ? 300 : length), (const char *)p);
    exit(1);
  }
  c->phase = OPEN;
  wire.upgraded++;
  wire.opening--;
  return (size_t)(end + 4 - p);
}

/* One read of at most `limit` bytes, all that it completes, and one write of what that called for, as a client would that takes its
 * messages in turn; false when there was nothing to read. */
static inline bool conn_read(conn_t *c, size_t limit) {
  if (c->kept_len + READ_BYTES > wire.scratch_room) {
    wire.scratch_room = c->kept_len * 2 + READ_BYTES;
    wire.scratch = grown(wire.scratch, wire.scratch_room);
  }
  uint8_t *p = wire.scratch;
  if (c->kept_len) memcpy(p, c->kept, c->kept_len);
  size_t room = wire.scratch_room - c->kept_len;
  ssize_t n = recv(c->fd, p + c->kept_len, room < limit ? room : limit, 0);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) conn_close(c, 1006);
    return false;
  }
  wire.bytes_in += (uint64_t)n;
  size_t length = c->kept_len + (size_t)n;
  size_t used = c->phase == UPGRADING ? take_upgrade(c, p, length) : 0;
  used += take_frames(c, p + used, length - used);
  c->kept_len = length - used;
  if (c->kept_len) {
    c->kept = grown(c->kept, c->kept_len);
    memcpy(c->kept, p + used, c->kept_len);
  } else if (c->kept) {
    free(c->kept);
    c->kept = NULL;
  }
  if (c->out_len && !c->wants_room) flush(c);
  return true;
}

/* ---- connecting ---- */

/* Begins a connection to `path`; the upgrade is asked for when the socket is connected. `receive_bytes` 0: the system's buffer. */
static inline void conn_open(conn_t *c, int index, const char *path, int receive_bytes) {
  c->index = index;
  c->opened_ns = now_ns();
  c->phase = CONNECTING;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) die("no more file descriptors: raise `ulimit -n`");
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (receive_bytes) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  if (index >= CONNECTIONS_PER_ADDRESS) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / CONNECTIONS_PER_ADDRESS));
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("cannot bind another loopback address");
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wire.port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("cannot connect");
  char request[1024];
  int n = snprintf(request, sizeof request,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                   path, wire.port);
  if (n < 0 || (size_t)n >= sizeof request) die("the path is too long");
  memcpy(reserve(c, (size_t)n), request, (size_t)n);
  c->out_len += (size_t)n;
  c->wants_room = true;
  wire.opening++;
  watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* Waits at most `wait_ns` for sockets and does what they bring. */
static inline void pump(uint64_t wait_ns) {
  struct epoll_event ready[256];
  struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
  int n = epoll_pwait2(wire.epoll_fd, ready, 256, &wait, NULL);
  for (int i = 0; i < n; i++) {
    conn_t *c = ready[i].data.ptr;
    if (c->phase == CLOSED) continue; /* by an earlier event of this round */
    if (c->phase == CONNECTING) {
      if (ready[i].events & (EPOLLERR | EPOLLHUP)) die("the server refuses connections");
      c->phase = UPGRADING;
    }
    if (ready[i].events & EPOLLOUT) flush(c);
    if (c->phase != CLOSED && ready[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) conn_read(c, WHOLE_BUFFER);
  }
}

static inline void wire_start(int port, int conn_count, on_text_t *on_text) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if ((rlim_t)conn_count + 16 > files.rlim_cur) die("more connections than file descriptors: raise `ulimit -n`");
  wire.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  wire.port = port;
  wire.on_text = on_text;
  wire.conn_count = conn_count;
  wire.conns = calloc((size_t)conn_count, sizeof *wire.conns);
  if (!wire.conns) die("out of memory");
}

#endif
