/* The few messages of the protocol that the load client writes, and what it reads from those it gets. Nothing here parses JSON: the
 * load client must cost less than the server, so it looks for keys, and relies on the servers' compact JSON. */
#ifndef LOAD_MESSAGES_H
#define LOAD_MESSAGES_H

#include "load_options.h"
#include "load_wire.h"

/* ---- reading messages ---- */

typedef enum { ACK, NACK, CHANGE, CATCH_UP, GREETING, SYNCED, PING, PONG, OTHER } kind_t;

/* The envelope's type: the first "type" of the text, since every server of the benchmark writes it before the payload. */
static kind_t kind_of(const char *text, size_t length) {
  static const struct { const char *name; kind_t kind; } kinds[] = {
      {"WIDGET_UPDATE\"", CHANGE}, {"ACK\"", ACK}, {"NACK\"", NACK}, {"SYNC_UPDATE\"", CATCH_UP}, {"CONNECT\"", GREETING},
      {"SYNC_RESPONSE\"", SYNCED}, {"PING\"", PING}, {"PONG\"", PONG}};
  const char *end = text + length, *p = memmem(text, length, "\"type\"", 6);
  if (!p) return OTHER;
  for (p += 6; p < end && (*p == ' ' || *p == ':' || *p == '"'); p++) {
  }
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    size_t n = strlen(kinds[i].name);
    if ((size_t)(end - p) >= n && !memcmp(p, kinds[i].name, n)) return kinds[i].kind;
  }
  return OTHER;
}

/* The integer after `key` at or behind *at, which moves behind it; 0 if there is none. */
static uint64_t number_after(const char **at, const char *end, const char *key) {
  size_t n = strlen(key);
  const char *p = memmem(*at, (size_t)(end - *at), key, n);
  uint64_t value = 0;
  if (!p) {
    *at = end;
    return 0;
  }
  for (p += n; p < end && *p == ' '; p++) {
  }
  for (; p < end && *p >= '0' && *p <= '9'; p++) value = value * 10 + (uint64_t)(*p - '0');
  *at = p;
  return value;
}

/* Writes the newest n of each widget in `text` to `state`, and returns the largest. */
static uint64_t learn(uint64_t *state, const char *text, size_t length) {
  const char *at = text, *end = text + length;
  uint64_t n, largest = 0;
  while ((n = number_after(&at, end, "\"n\":")) != 0) {
    if (n > largest) largest = n;
    if (state && n > state[n % (uint64_t)opt.widgets]) state[n % (uint64_t)opt.widgets] = n;
  }
  return largest;
}

/* Whether `state` holds the newest value of every widget that operations since+1 ... target have written. */
static bool has_all(const uint64_t *state, uint64_t since, uint64_t target) {
  uint64_t first = target > (uint64_t)opt.widgets ? target - (uint64_t)opt.widgets : 0;
  for (uint64_t n = (since > first ? since : first) + 1; n <= target; n++)
    if (state[n % (uint64_t)opt.widgets] != n) return false;
  return true;
}

/* ---- writing messages ---- */

static void publish(conn_t *c) {
  static char text[sizeof padding + 512];
  uint64_t n = ++c->sent;
  int length = snprintf(text, sizeof text,
                        "{\"type\":\"WIDGET_UPDATE\",\"id\":\"b-%d-%d-%llu\",\"timestamp\":\"2024-11-24T10:00:00.000Z\",\"userId\":\"u%d\","
                        "\"payload\":{\"widgetId\":\"widget-%llu\",\"data\":{\"title\":\"New Title\",\"value\":42,\"n\":%llu%s%s%s}}}",
                        (int)getpid(), c->index, (unsigned long long)n, c->index, (unsigned long long)(n % (uint64_t)opt.widgets),
                        (unsigned long long)n, opt.pad ? ",\"pad\":\"" : "", padding, opt.pad ? "\"" : "");
  put_frame(c, 1, text, (size_t)length);
}

#endif
