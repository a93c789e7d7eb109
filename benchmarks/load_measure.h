/* Clocks, samples and what /proc says of a process; knows nothing of WebSockets. */
#ifndef LOAD_MEASURE_H
#define LOAD_MEASURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull

static inline void die(const char *sentence) {
  fprintf(stderr, "load: %s\n", sentence);
  exit(1);
}

static inline void *grown(void *block, size_t bytes) {
  void *larger = realloc(block, bytes);
  if (!larger) die("out of memory");
  return larger;
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- samples: every latency is kept, so a percentile is exact ---- */

typedef struct samples {
  uint64_t *ns;
  size_t count, room;
} samples_t;

static inline void sample_add(samples_t *s, uint64_t ns) {
  if (s->count == s->room) {
    s->room = s->room ? s->room * 2 : 4096;
    s->ns = grown(s->ns, s->room * sizeof *s->ns);
  }
  s->ns[s->count++] = ns;
}

static inline int compare_u64(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static inline void samples_sort(samples_t *s) {
  if (s->count) qsort(s->ns, s->count, sizeof *s->ns, compare_u64);
}

/* Nearest rank, in milliseconds; the samples must be sorted. */
static inline double percentile_ms(const samples_t *s, double part) {
  if (!s->count) return 0;
  size_t rank = (size_t)(part * (double)s->count);
  return (double)s->ns[rank < s->count ? rank : s->count - 1] / 1e6;
}

/* ---- the report: one JSON object on stdout, a field at a time ---- */

static inline void say(const char *name, double value) { printf(",\"%s\":%.9g", name, value); }

static inline void say_latency(const char *name, samples_t *s) {
  samples_sort(s);
  printf(",\"%s\":{\"samples\":%zu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}", name, s->count, percentile_ms(s, 0.5),
         percentile_ms(s, 0.99), percentile_ms(s, 1));
}

/* ---- processes ---- */

typedef struct usage {
  double cpu_s;  /* user and system time of all threads, ended ones included */
  double rss_kb; /* resident memory */
} usage_t;

static inline usage_t usage_of(int pid) {
  usage_t used = {0, 0};
  char path[64], text[4096];
  if (pid <= 0) return used;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return used;
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  char *after_name = strrchr(text, ')'); /* the name may hold spaces and brackets */
  unsigned long user, system;
  long pages;
  const char *fields = "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld";
  if (after_name && sscanf(after_name + 2, fields, &user, &system, &pages) == 3) {
    used.cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    used.rss_kb = (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
  }
  return used;
}

static inline double own_cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

#endif
