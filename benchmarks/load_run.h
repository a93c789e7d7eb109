/* What all modes share: the counters of a run, how far the members are, opening connections, the measured window, the report. */
#ifndef LOAD_RUN_H
#define LOAD_RUN_H

#include "load_messages.h"

#define RING (1u << 18)
#define STALL_NS (15 * NS_PER_S)

/* What a run has counted. `measuring` is true between warm-up and end. */
static struct {
  bool measuring;
  uint64_t acks, nacks, deliveries, catch_ups, server_pings, begun_ns, ended_ns;
  usage_t before, after;
  double own_before, own_after;
} run;

static samples_t each_delivery, last_delivery, handshakes, probe_samples, converged_after;

/* ---- how far the members are ---- */

static struct {
  uint64_t due_ns[RING]; /* when operation n was to be sent */
  uint32_t left[RING];   /* members that have not seen it */
  uint64_t through;      /* every operation up to this one has reached all */
  uint64_t reached;      /* the positions of all members added up */
  uint64_t recorded_from; /* operations before this one belong to the warm-up */
} flight;

static void publish_due(conn_t *publisher, uint64_t due_ns, uint32_t members) {
  uint64_t n = publisher->sent + 1;
  if (n - flight.through >= RING) die("too many operations in flight");
  flight.due_ns[n % RING] = due_ns;
  flight.left[n % RING] = members;
  publish(publisher);
}

/* Member `c` has seen everything up to operation n. */
static void reached(conn_t *c, uint64_t n) {
  uint64_t now = opt.rate > 0 ? now_ns() : 0;
  for (uint64_t k = c->position + 1; k <= n; k++) {
    bool recorded = opt.rate > 0 && flight.recorded_from && k >= flight.recorded_from;
    if (recorded) sample_add(&each_delivery, now - flight.due_ns[k % RING]);
    if (--flight.left[k % RING]) continue;
    if (recorded) sample_add(&last_delivery, now - flight.due_ns[k % RING]);
    flight.through = k; /* members see operations in order, so the last one of k has seen k - 1 too */
  }
  if (n <= c->position) return;
  flight.reached += n - c->position;
  c->position = n;
}

static void greet(conn_t *c) {
  c->greeted = true;
  wire.greeted++;
  sample_add(&handshakes, now_ns() - c->opened_ns);
}

static void on_answer(conn_t *c, kind_t kind, const char *text, size_t length) {
  c->answered++;
  if (kind == ACK) {
    run.acks += run.measuring;
  } else if (!run.nacks++) {
    fprintf(stderr, "load: NACK: %.*s\n", (int)(length > 400 ? 400 : length), text);
  }
}

/* on_text of every mode but resume. */
static void on_message(conn_t *c, const char *text, size_t length) {
  kind_t kind = kind_of(text, length);
  if (kind == CHANGE) {
    const char *at = text;
    run.deliveries += run.measuring;
    reached(c, number_after(&at, text + length, "\"n\":"));
  } else if (kind == CATCH_UP) {
    run.catch_ups++;
    reached(c, learn(NULL, text, length));
  } else if (kind == ACK || kind == NACK) {
    on_answer(c, kind, text, length);
  } else if (kind == GREETING) {
    greet(c);
  } else {
    run.server_pings += kind == PING;
  }
}

/* ---- opening and measuring ---- */

static void path_of(char *path, size_t room, int index, const char *rest) {
  bool own = opt.room && !strcmp(opt.room, "own");
  snprintf(path, room, "/api/realtime?userId=u%d&dashboardId=d%d%s", index, own ? index : 0, rest);
}

/* Opens `count` connections from `first` on, at most `inflight` of them on their way, until each has had its CONNECT. */
static void open_conns(int first, int count, long inflight, const char *rest, int receive_bytes) {
  char path[512];
  int opened = 0, target = wire.greeted + count;
  uint64_t progress_ns = now_ns();
  while (wire.greeted < target) {
    int before = wire.greeted, begun = 0;
    for (; opened < count && opened - (count - (target - wire.greeted)) < inflight && begun < 16; opened++, begun++) {
      path_of(path, sizeof path, first + opened, rest);
      conn_open(&wire.conns[first + opened], first + opened, path, receive_bytes);
    }
    pump(begun ? 0 : NS_PER_S / 100);
    if (wire.greeted > before) progress_ns = now_ns();
    if (wire.closed) die("a connection was closed while connecting");
    if (now_ns() - progress_ns > STALL_NS) die("the handshakes stand still");
  }
}

static void pump_for(double seconds) {
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), now;
  while ((now = now_ns()) < end) pump(end - now);
}

static void measure_begin(void) {
  run.before = usage_of((int)opt.pid);
  run.own_before = own_cpu_s();
  run.begun_ns = now_ns();
  run.measuring = true;
}

static void measure_end(void) {
  run.measuring = false;
  run.ended_ns = now_ns();
  run.after = usage_of((int)opt.pid);
  run.own_after = own_cpu_s();
}

/* ---- the report ---- */

static double measured_s(void) { return (double)(run.ended_ns - run.begun_ns) / 1e9; }

static void report_begin(void) {
  printf("{\"mode\":\"%s\"", opt.mode);
  say("conns", (double)opt.conns);
  say("closed", wire.closed);
  if (wire.closed) say("first_close_code", wire.first_close_code);
  say("nacks", (double)run.nacks);
  say("measured_s", measured_s());
  if (measured_s() > 0) {
    double cpu_s = run.after.cpu_s - run.before.cpu_s;
    say("server_cpu_s", cpu_s);
    say("server_cpu_share", cpu_s / measured_s());
    say("load_cpu_share", (run.own_after - run.own_before) / measured_s());
  }
  say("rss_kb", run.after.rss_kb);
}

static void say_per_unit(const char *unit, uint64_t count) {
  char name[64];
  snprintf(name, sizeof name, "%s_per_s", unit);
  say(name, (double)count / measured_s());
  snprintf(name, sizeof name, "us_per_%s", unit);
  say(name, count ? (run.after.cpu_s - run.before.cpu_s) * 1e6 / (double)count : 0);
}

static void report_end(void) { printf("}\n"); }

#endif
