/* The options of the load client, in pairs: --name value. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include "load_measure.h"

#define MAX_WIDGETS 1024

static char padding[65536];

static struct {
  const char *mode, *room, *epoch, *pace;
  long port, pid, conns, window, pad, widgets, inflight, ops, since, spread, target, slow;
  double rate, secs, warm, drain_secs, probe_ms;
} opt = {.mode = "fanout", .room = NULL, .epoch = "", .pace = "mean", .conns = 100, .window = 8, .widgets = 16, .inflight = 64, .secs = 3, .warm = 1,
         .drain_secs = 5};

static const struct option_row {
  const char *name;
  enum { WORD, COUNT, REAL } kind;
  void *to;
} option_rows[] = {
    {"mode", WORD, &opt.mode},         {"room", WORD, &opt.room},     {"epoch", WORD, &opt.epoch},   {"port", COUNT, &opt.port},
    {"pace", WORD, &opt.pace}, {"pid", COUNT, &opt.pid},          {"conns", COUNT, &opt.conns},  {"window", COUNT, &opt.window}, {"pad", COUNT, &opt.pad},
    {"widgets", COUNT, &opt.widgets},  {"inflight", COUNT, &opt.inflight}, {"ops", COUNT, &opt.ops}, {"since", COUNT, &opt.since},
    {"spread", COUNT, &opt.spread},    {"target", COUNT, &opt.target}, {"slow", COUNT, &opt.slow},   {"rate", REAL, &opt.rate},
    {"secs", REAL, &opt.secs},         {"warm", REAL, &opt.warm},     {"drain-secs", REAL, &opt.drain_secs},
    {"probe-ms", REAL, &opt.probe_ms},
};

static void read_option(const char *name, const char *value) {
  for (size_t i = 0; i < sizeof option_rows / sizeof *option_rows; i++) {
    const struct option_row *row = &option_rows[i];
    if (strcmp(name, row->name)) continue;
    if (row->kind == WORD) *(const char **)row->to = value;
    if (row->kind == COUNT) *(long *)row->to = strtol(value, NULL, 10);
    if (row->kind == REAL) *(double *)row->to = strtod(value, NULL);
    return;
  }
  fprintf(stderr, "load: no option --%s\n", name);
  exit(2);
}

static void read_options(int count, char **words) {
  for (int i = 1; i < count; i += 2) {
    if (strncmp(words[i], "--", 2) || i + 1 == count) die("options come in pairs: --name value");
    read_option(words[i] + 2, words[i + 1]);
  }
  if (opt.probe_ms <= 0) opt.probe_ms = 2;
  if (opt.port <= 0 || opt.conns < 1 || opt.window < 1 || opt.inflight < 1) die("--port, --conns, --window, --inflight: 1 or more");
  if (opt.widgets < 1 || opt.widgets > MAX_WIDGETS) die("--widgets: 1 to 1024");
  if (opt.pad < 0 || opt.pad >= (long)sizeof padding) die("--pad: 0 to 65535");
  memset(padding, 'x', (size_t)opt.pad);
}

#endif
