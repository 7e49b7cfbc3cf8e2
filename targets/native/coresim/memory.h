/* Caches, line fills in flight, prefetchers, translation and bandwidth of one core; times in cycles of the core. */
#ifndef EDGEKIT_MEMORY_H
#define EDGEKIT_MEMORY_H

#include "core_config.h"

#include <stdbool.h>
#include <stdint.h>

enum { LINE_SHIFT = 6, LINE_BYTES = 64, PAGE_SHIFT = 12, LINES_PER_PAGE = 64 };

typedef struct {
    uint64_t l1_misses, l2_misses, memory_reads, memory_writes, tlb_misses, table_walks, prefetches;
} MemoryCounts;

typedef struct {
    uint64_t tag;     /* line number + 1; 0: empty */
    uint64_t written; /* L1 lines that stores made without a fill: which of their bytes are written */
    double ready;
    uint32_t stamp;
    bool dirty, partial, prefetched;
} Way;

typedef struct {
    Way *ways;
    uint64_t num_sets, set_mask; /* set_mask 0: the number of sets is no power of two */
    int num_ways;
    uint32_t clock;
    double port_free; /* when its path towards the core is free */
    double cycles_per_line;
    double latency;
    double *fills; /* ring: when each of the last fills ends */
    int num_fills, next_fill;
} Cache;

typedef struct {
    uint64_t last;    /* line of the last match */
    uint64_t ahead_l1, ahead_l2; /* how many strides past `last` are already asked for */
    int64_t stride;
    int confidence;
    uint32_t stamp;
} Stream;

typedef struct {
    uint64_t *pages; /* hash table of page + 1 */
    uint32_t *stamps;
    int num_entries, num_sets, num_ways;
    uint32_t clock;
} Tlb;

enum { MAX_STREAMS = 64 };

typedef struct {
    const CoreConfig *config;
    Cache caches[MAX_LEVELS];
    int num_levels;
    Tlb first_tlb, second_tlb;
    Stream streams[MAX_STREAMS];
    uint32_t stream_clock;
    double dram_free, memory_cycles_per_line; /* dram_free: when the path to memory is free */
    double *stores; /* ring: when each of the last store buffer entries drains */
    int next_store;
    double store_free;
    uint64_t last_line, last_page;
    double last_ready;
    MemoryCounts counts;
} Memory;

void memory_init(Memory *memory, const CoreConfig *config);

void memory_free(Memory *memory);

/* A load at `time`: returns when its line is in L1; a value not above `time` means a hit. `wait` is set to the time
   before which the load cannot start because all line fills are in flight. */
double memory_load(Memory *memory, uint64_t address, double time, double *wait);

/* A store at `time`: returns when its store buffer entry is free again. */
double memory_store(Memory *memory, uint64_t address, unsigned bytes, double time);

/* A prefetch instruction at `time`: returns when its line fill begins, which is when it is done. */
double memory_prefetch(Memory *memory, uint64_t address, double time);

/* The time at which a store buffer entry is free for the next store. */
double memory_store_slot(const Memory *memory);

#endif
