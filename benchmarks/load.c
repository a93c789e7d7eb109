/* The load side of the benchmark: one thread on epoll that plays thousands of clients and prints one JSON object.
 *
 *   cc -O2 -std=gnu11 -Wall -Wextra -Werror -o load load.c
 *   load --port 3000 --pid PID --mode fanout --conns 1000 --window 4
 *
 * modes
 *   fanout     connection 0 publishes, the others count what reaches them. Closed loop: at most `window` operations are in flight.
 *              `--pace mean` (default): another one goes out when as many frames have come in as one operation makes, whoever had
 *              them; `--pace last`: when the ACK *and the last delivery* of one have come. With `rate`: open loop by the clock,
 *              latency counted from the intended time, to each delivery and to the last one.
 *   ack        every connection publishes on a dashboard of its own, `window` operations in flight each
 *   handshake  opens `conns` connections, `inflight` at a time; one is done when CONNECT has come
 *   idle       the same, then holds them for `secs`, answering pings
 *   publish    one connection writes `ops` operations and prints epoch and seq (prepares `resume`)
 *   resume     `conns` clients connect at once with `since` and `epoch`; each has converged when what it was sent holds the newest
 *              value of every widget up to operation `target`. A probe on another dashboard measures time to PONG meanwhile.
 *   slow       fanout at `rate`, and with `--slow 1` one more member whose SO_RCVBUF is 8 kB and who reads 1 kB/s
 *
 * Operation number n (1, 2, 3, ...) writes {"n": n} to widget n % widgets, so whoever sees an n knows which widget it belongs to, and
 * a catch-up that carries several merged documents tells by its largest n how far the member is. */
#define _GNU_SOURCE
#include "load_run.h"

#define SLOW_BYTES_PER_S 1000
#define SLOW_RECEIVE_BUFFER 8192

/* ---- fanout and slow ---- */

static void offer_closed(conn_t *publisher, uint32_t members) {
  bool last = !strcmp(opt.pace, "last");
  uint64_t done = last && flight.through < publisher->answered ? flight.through : publisher->answered;
  if (!last) done = (flight.reached + publisher->answered) / (members + 1);
  while (publisher->sent < done + (uint64_t)opt.window) publish_due(publisher, now_ns(), members);
  flush(publisher);
}

/* Publishes what is due by the clock; returns when the next one is. */
static uint64_t offer_open(conn_t *publisher, uint32_t members, uint64_t begun_ns) {
  uint64_t due;
  while ((due = begun_ns + (uint64_t)((double)publisher->sent * 1e9 / opt.rate)) <= now_ns()) publish_due(publisher, due, members);
  flush(publisher);
  return due;
}

static struct {
  conn_t *conn;
  uint64_t state[MAX_WIDGETS], begun_ns, bytes, catch_ups, frames;
} slow;

static void on_slow_text(conn_t *c, const char *text, size_t length) {
  if (c != slow.conn || !c->greeted) {
    on_message(c, text, length);
    return;
  }
  slow.frames++;
  slow.catch_ups += kind_of(text, length) == CATCH_UP;
  learn(slow.state, text, length);
}

/* Lets the slow member read as many bytes as it may have read by now. */
static void slow_turn(void) {
  if (!slow.conn || slow.conn->phase != OPEN) return;
  uint64_t allowed = (uint64_t)((double)(now_ns() - slow.begun_ns) / 1e9 * SLOW_BYTES_PER_S), before = wire.bytes_in;
  if (allowed < slow.bytes + SLOW_BYTES_PER_S / 10) return;
  conn_read(slow.conn, allowed - slow.bytes);
  slow.bytes += wire.bytes_in - before;
  if (wire.bytes_in == before) slow.bytes = allowed; /* nothing to read: the time is lost, not saved up */
}

static void slow_join(void) {
  conn_t *c = &wire.conns[opt.conns];
  slow.conn = c;
  open_conns((int)opt.conns, 1, 1, "", SLOW_RECEIVE_BUFFER);
  epoll_ctl(wire.epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
  c->by_hand = true;
  slow.begun_ns = now_ns();
}

/* Runs the loop from warm-up to end; false if nothing moved for STALL_NS. */
static bool drive_fanout(conn_t *publisher, uint32_t members) {
  uint64_t begun = now_ns(), measure_at = begun + (uint64_t)(opt.warm * 1e9), end = measure_at + (uint64_t)(opt.secs * 1e9);
  uint64_t moved = begun, through = 0, now;
  while ((now = now_ns()) < end) {
    if (!run.measuring && now >= measure_at) {
      measure_begin();
      flight.recorded_from = publisher->sent + 1;
    }
    uint64_t next = now + NS_PER_S / 50;
    if (opt.rate > 0) {
      uint64_t due = offer_open(publisher, members, begun);
      if (due < next) next = due;
    } else {
      offer_closed(publisher, members);
    }
    slow_turn();
    now = now_ns();
    pump(next > now ? next - now : 0);
    if (flight.through != through) {
      through = flight.through;
      moved = now;
    } else if (now - moved > STALL_NS) {
      break;
    }
  }
  measure_end();
  return now >= end && run.deliveries > 0;
}

static bool slow_is_done(conn_t *publisher) { return !slow.conn || slow.conn->phase != OPEN || has_all(slow.state, 0, publisher->sent); }

static void run_fanout(void) {
  conn_t *publisher = &wire.conns[0];
  uint32_t members = (uint32_t)opt.conns - 1;
  open_conns(0, (int)opt.conns, opt.inflight, "", 0);
  if (opt.slow) slow_join();
  pump_for(0.3);
  bool moved = drive_fanout(publisher, members);
  uint64_t drain_from = now_ns(), drain_end = drain_from + (uint64_t)(opt.drain_secs * 1e9);
  while (moved && now_ns() < drain_end && (flight.through < publisher->sent || !slow_is_done(publisher))) {
    slow_turn();
    pump(NS_PER_S / 50);
  }
  report_begin();
  say("stalled", !moved);
  say("undelivered", (double)(publisher->sent - flight.through));
  say("catch_ups", (double)run.catch_ups);
  say("server_pings", (double)run.server_pings);
  say_per_unit("delivery", run.deliveries);
  if (opt.rate > 0) {
    say_latency("each_delivery", &each_delivery);
    say_latency("last_delivery", &last_delivery);
  }
  say("rss_growth_kb", run.after.rss_kb - run.before.rss_kb);
  if (slow.conn) {
    say("slow_closed", slow.conn->phase != OPEN);
    say("slow_converged", has_all(slow.state, 0, publisher->sent));
    say("slow_drain_s", (double)(now_ns() - drain_from) / 1e9);
    say("slow_bytes", (double)slow.bytes);
    say("slow_frames", (double)slow.frames);
    say("slow_catch_ups", (double)slow.catch_ups);
  }
  report_end();
}

/* ---- ack ---- */

static void on_ack_text(conn_t *c, const char *text, size_t length) {
  on_message(c, text, length);
  while (c->sent && c->sent < c->answered + (uint64_t)opt.window) publish(c);
}

static void run_ack(void) {
  if (!opt.room) opt.room = "own";
  open_conns(0, (int)opt.conns, opt.inflight, "", 0);
  pump_for(0.3);
  for (long i = 0; i < opt.conns; i++) {
    for (long w = 0; w < opt.window; w++) publish(&wire.conns[i]);
    flush(&wire.conns[i]);
  }
  pump_for(opt.warm);
  measure_begin();
  pump_for(opt.secs);
  measure_end();
  report_begin();
  say("stalled", run.acks == 0);
  say_per_unit("ack", run.acks);
  report_end();
}

/* ---- handshake and idle ---- */

static void run_handshake(void) {
  bool holds = !strcmp(opt.mode, "idle");
  measure_begin();
  double rss_before_kb = run.before.rss_kb;
  open_conns(0, (int)opt.conns, opt.inflight, "", 0);
  measure_end();
  double opening_s = measured_s(), us_each = (run.after.cpu_s - run.before.cpu_s) * 1e6 / (double)opt.conns;
  double opening_load_share = (run.own_after - run.own_before) / opening_s;
  pump_for(1);
  double rss_opened_kb = usage_of((int)opt.pid).rss_kb;
  if (holds) {
    pump_for(opt.warm);
    measure_begin();
    pump_for(opt.secs);
    measure_end();
  }
  report_begin();
  say("handshakes_per_s", (double)opt.conns / opening_s);
  say("us_per_handshake", us_each);
  say("opening_load_cpu_share", opening_load_share);
  say_latency("handshake", &handshakes);
  say("kb_per_conn_opened", (rss_opened_kb - rss_before_kb) / (double)opt.conns);
  if (holds) {
    say("kb_per_conn", (run.after.rss_kb - rss_before_kb) / (double)opt.conns);
    say("server_pings", (double)run.server_pings);
    say("pongs", (double)wire.pongs);
  }
  report_end();
}

/* ---- publish and resume ---- */

static char epoch_seen[160];
static uint64_t seq_seen;

static void on_publish_text(conn_t *c, const char *text, size_t length) {
  const char *p = memmem(text, length, "\"epoch\":\"", 9);
  if (p && !c->greeted) sscanf(p + 9, "%127[^\"]", epoch_seen); /* the text is followed by more of the buffer, so a quote ends it */
  on_message(c, text, length);
  const char *at = text;
  uint64_t seq = number_after(&at, text + length, "\"seq\":");
  if (seq > seq_seen) seq_seen = seq;
  while (c->sent && c->sent < (uint64_t)opt.ops && c->sent < c->answered + (uint64_t)opt.window) publish(c);
}

static void run_publish(void) {
  conn_t *c = &wire.conns[0];
  uint64_t answered = 0, progress_ns = now_ns();
  open_conns(0, 1, 1, "", 0);
  measure_begin();
  publish(c);
  flush(c);
  while (c->answered < (uint64_t)opt.ops && c->phase == OPEN && now_ns() - progress_ns < STALL_NS) {
    if (c->answered != answered) progress_ns = now_ns();
    answered = c->answered;
    pump(NS_PER_S / 50);
  }
  measure_end();
  report_begin();
  say("answered", (double)c->answered);
  say("seq", (double)seq_seen);
  printf(",\"epoch\":\"%s\"", epoch_seen);
  report_end();
}

static struct {
  conn_t *conn;
  uint64_t begun_ns, sent, answered;
} probe;

static struct { uint64_t converged, deltas, merged, snapshots, bytes; } resumed;
static uint64_t *resume_states; /* conns x widgets */

static uint64_t since_of(int index) { return (uint64_t)opt.since + (uint64_t)(opt.spread * index / opt.conns); }

static void on_resume_text(conn_t *c, const char *text, size_t length) {
  kind_t kind = kind_of(text, length);
  if (c == probe.conn && c->greeted) {
    if (kind == PONG) sample_add(&probe_samples, now_ns() - (probe.begun_ns + (uint64_t)((double)probe.answered++ * opt.probe_ms * 1e6)));
    return;
  }
  if (kind == GREETING) greet(c);
  if (c == probe.conn || c->position || (kind != GREETING && kind != SYNCED && kind != CATCH_UP && kind != CHANGE)) return;
  uint64_t *state = resume_states + (size_t)c->index * (size_t)opt.widgets;
  learn(state, text, length);
  resumed.bytes += length;
  resumed.deltas += memmem(text, length, "\"mode\":\"delta\"", 14) != NULL;
  resumed.merged += memmem(text, length, "\"mode\":\"merged\"", 15) != NULL;
  resumed.snapshots += memmem(text, length, "\"mode\":\"snapshot\"", 17) != NULL;
  if (!has_all(state, since_of(c->index), (uint64_t)opt.target)) return;
  c->position = (uint64_t)opt.target;
  resumed.converged++;
  sample_add(&converged_after, now_ns() - c->opened_ns);
}

/* PINGs by the clock, not by the answers: a loop that stands still for 100 ms is seen by every PING that was due meanwhile. */
static void probe_turn(void) {
  char text[128];
  uint64_t due = (uint64_t)((double)(now_ns() - probe.begun_ns) / 1e6 / opt.probe_ms) + 1;
  for (; probe.sent < due; probe.sent++) {
    int n = snprintf(text, sizeof text, "{\"type\":\"PING\",\"id\":\"probe-%llu\",\"userId\":\"u%d\",\"payload\":{}}",
                     (unsigned long long)probe.sent, probe.conn->index);
    put_frame(probe.conn, 1, text, (size_t)n);
  }
  flush(probe.conn);
}

static void run_resume(void) {
  char rest[256], path[512];
  int count = (int)opt.conns, opened = 0;
  resume_states = calloc((size_t)opt.conns * (size_t)opt.widgets, sizeof *resume_states);
  probe.conn = &wire.conns[count];
  opt.room = "own"; /* the probe stands on a dashboard of its own, d<conns> */
  open_conns(count, 1, 1, "", 0);
  opt.room = "one";
  pump_for(0.2);
  probe.begun_ns = now_ns();
  measure_begin();
  uint64_t end = now_ns() + (uint64_t)(opt.secs * 1e9);
  while (resumed.converged < (uint64_t)count && now_ns() < end) {
    for (int begun = 0; opened < count && begun < 16; opened++, begun++) {
      snprintf(rest, sizeof rest, "&since=%llu&epoch=%s", (unsigned long long)since_of(opened), opt.epoch);
      path_of(path, sizeof path, opened, rest);
      conn_open(&wire.conns[opened], opened, path, 0);
    }
    probe_turn();
    pump(NS_PER_S / 1000);
  }
  measure_end();
  while (probe.answered < probe.sent && now_ns() < end) pump(NS_PER_S / 100);
  report_begin();
  say("converged", (double)resumed.converged);
  say("deltas", (double)resumed.deltas);
  say("merged", (double)resumed.merged);
  say("snapshots", (double)resumed.snapshots);
  say("bytes_each", (double)resumed.bytes / (double)count);
  say("us_per_resume", (run.after.cpu_s - run.before.cpu_s) * 1e6 / (double)count);
  say_latency("converge", &converged_after);
  say_latency("probe", &probe_samples);
  say("probe_unanswered", (double)(probe.sent - probe.answered));
  report_end();
}

int main(int count, char **words) {
  static const struct { const char *name; void (*run)(void); on_text_t *on_text; } modes[] = {
      {"fanout", run_fanout, on_message},   {"slow", run_fanout, on_slow_text},       {"ack", run_ack, on_ack_text},
      {"idle", run_handshake, on_message},  {"handshake", run_handshake, on_message}, {"publish", run_publish, on_publish_text},
      {"resume", run_resume, on_resume_text},
  };
  read_options(count, words);
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(opt.mode, modes[i].name)) continue;
    wire_start((int)opt.port, (int)opt.conns + 1, modes[i].on_text); /* one more for the slow member or the probe */
    modes[i].run();
    return 0;
  }
  die("--mode: fanout, slow, ack, handshake, idle, publish or resume");
}
