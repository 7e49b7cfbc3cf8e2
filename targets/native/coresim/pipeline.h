/* The scheduling of one core, in order or out of order, block by block. */
#ifndef EDGEKIT_PIPELINE_H
#define EDGEKIT_PIPELINE_H

#include "core_config.h"
#include "decode_table.h"
#include "memory.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t address;
    uint32_t num_words;
    DecodedWord *words;
} Block;

/* One access of a block's execution, in program order. */
typedef struct {
    uint64_t address;
    uint32_t instruction; /* index within the block */
    bool store;
} Access;

/* How a block ended. */
typedef struct {
    bool taken, mispredicted;
} BranchOutcome;

/* Cycles are kept in a ring of bits, one a cycle and port: enough for what a reorder buffer spans. */
enum { RING_WORDS = 128, RING_CYCLES = RING_WORDS * 64, MAX_RETIRE_RING = 1024 };

typedef struct {
    const CoreConfig *config;
    Memory memory;
    bool perfect_memory; /* every access hits L1 */

    uint64_t ready[NUM_REGISTERS];   /* when each register's value is there */
    uint64_t forward[NUM_REGISTERS]; /* the same for the accumulator of a multiply-accumulate */
    uint64_t base_value[NUM_REGISTERS]; /* values followed as far as addresses tell them, for prefetch instructions */
    bool base_known[NUM_REGISTERS];

    /* out of order */
    uint64_t busy[MAX_PORTS][RING_WORDS];
    uint16_t leaving[MAX_QUEUES][RING_CYCLES]; /* entries of a queue that leave it in each cycle */
    int waiting[MAX_QUEUES];
    uint64_t drained[MAX_QUEUES]; /* cycles before this are accounted for in waiting[] */
    uint64_t horizon;             /* cycles before this are in the past */
    uint64_t dispatch_cycle;
    int dispatched; /* slots used in dispatch_cycle */
    uint64_t port_dispatch_cycle[MAX_PORTS]; /* the last cycle in which an operation was dispatched to each port */
    int port_dispatched[MAX_PORTS];          /* how many were in that cycle */
    uint64_t retire_ring[MAX_RETIRE_RING];
    uint32_t retire_position;
    uint64_t last_retire;
    int retired;

    /* in order */
    uint64_t port_free[MAX_PORTS];
    uint64_t kept[MAX_PORTS];      /* bit i: cycle kept_from + i is kept from others by an operation with a delay */
    uint64_t kept_from[MAX_PORTS];
    uint64_t issue_cycle;
    int issued;

    uint64_t last_branch_done; /* when the last branch was resolved */
} Pipeline;

void pipeline_init(Pipeline *pipeline, const CoreConfig *config, bool perfect_memory);

/* Execute a block once. */
void pipeline_run(Pipeline *pipeline, const Block *block, const Access *accesses, uint32_t num_accesses);

/* What the branch at the end of the last block costs. */
void pipeline_branch(Pipeline *pipeline, BranchOutcome outcome);

/* The core's clock: when the last instruction retired (out of order) or issued (in order). */
uint64_t pipeline_now(const Pipeline *pipeline);

#endif
