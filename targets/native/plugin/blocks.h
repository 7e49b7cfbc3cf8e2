/* The translation blocks that were seen, and how often each was executed. */
#ifndef EDGEKIT_BLOCKS_H
#define EDGEKIT_BLOCKS_H

#include "qemu_plugin.h"

struct block {
    uint64_t address;
    uint32_t *words;
    uint32_t length; /* in instructions */
    uint32_t index;
    struct block *next; /* in its hash bucket */
    bool described;     /* in the trace stream */
};

/* Whose executions are counted, and how. Written when the counted region begins, by region.c alone. */
struct counting {
    unsigned vcpu;
    bool by_callback; /* other threads are alive: count in a callback, which knows the thread */
};
extern struct counting counting;

/* Whether this QEMU (9.0 on) has counters with one row a vCPU; before, inline counters are plain memory. */
bool has_scoreboards(void);

/* Before anything is counted. */
void prepare_counters(void);

/* The same code translated again is the same block; other code at the same address is another. Dies beyond 4 million. */
struct block *find_block(uint64_t address, const uint32_t *words, uint32_t length);
struct block *block_at(uint32_t index);
uint32_t num_blocks(void);

/* Instrument a block that is being translated: the total of all threads, and this block's own counter. */
void count_inline_in_total(struct qemu_plugin_tb *tb, size_t length);
void count_inline(struct qemu_plugin_tb *tb, const struct block *block);

/* Count one execution from a callback. */
void count_execution(const struct block *block);

/* Instructions that all threads executed since the guest's start. */
uint64_t total_instructions(void);

/* Call `keep` for each block that was executed since the last call of this, with its executions since then. */
void take_growth(void (*keep)(uint32_t block, uint64_t executions));

#endif
