/* One core: what its file says (written by edgekit/targets/emulated/cores.py). All times are in cycles of the core. */
#ifndef EDGEKIT_CORE_CONFIG_H
#define EDGEKIT_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum { MAX_CLASSES = 128, MAX_OPERATIONS = 12, MAX_PORTS = 20, MAX_QUEUES = 12, MAX_LEVELS = 3, MAX_NAME = 64, MAX_DELAY = 63 };

/* One micro-operation: the ports that can do it, and for how many cycles it keeps one of them busy. */
typedef struct {
    uint32_t ports;
    int occupancy;
    int delay; /* 0; else, in order only: it takes the port that many cycles after issue, from others that issue then */
    int queue; /* the issue queue that it waits in: that of its first port */
    bool limited; /* each of its ports has a dispatch limit */
} Operation;

/* The row of a core table for one class of instructions. */
typedef struct {
    bool present;
    int latency;      /* issue to result */
    int step;         /* how much later each further register of a load is there */
    int forward;      /* issue to the accumulator operand of the next multiply-accumulate */
    int slots;        /* dispatch slots; an in-order core: issue slots */
    bool first;       /* in order only: cannot be the second of a pair, so it issues first in its cycle */
    int num_operations;
    Operation operations[MAX_OPERATIONS];
} ClassTiming;

typedef struct {
    int64_t bytes; /* 0: this level is absent */
    int ways;
    double latency;         /* added to the L1 hit latency when the line comes from here */
    double bytes_per_cycle; /* towards the core */
    int outstanding;        /* line fills in flight at a time */
} CacheConfig;

typedef struct {
    char name[MAX_NAME];
    bool in_order;
    int dispatch_width;
    int retire_width;
    int reorder_buffer;
    int store_buffer;
    int mispredict_penalty;
    int taken_branch_bubble;
    int num_ports;
    int queue_of_port[MAX_PORTS];
    int dispatch_limit[MAX_PORTS]; /* operations for this port that can be dispatched in a cycle; 0: no limit */
    int queue_entries[MAX_QUEUES]; /* 0: no limit */
    ClassTiming classes[MAX_CLASSES];
    CacheConfig levels[MAX_LEVELS];
    double memory_latency; /* like CacheConfig.latency, from memory */
    double memory_bytes_per_cycle;
    int prefetch_streams;
    int prefetch_trigger; /* line fills with one stride before prefetching starts */
    int prefetch_l1_lines;
    int prefetch_l2_lines;
    int prefetch_max_stride; /* in lines */
    bool prefetch_crosses_pages;
    int first_tlb_entries;
    int first_tlb_miss; /* second-level TLB hit, added */
    int second_tlb_entries;
    int table_walk; /* second-level TLB miss, added */
} CoreConfig;

/* Reads the file, or says what is wrong on standard error and ends the program with code 2. */
void core_config_load(CoreConfig *config, const char *path);

#endif
