#include "blocks.h"

#include <string.h>

#include "checked.h"

#define CHUNK_BLOCKS 4096u
#define MAX_CHUNKS 1024u
#define HASH_BUCKETS (1u << 16)

/* Blocks never move: translated code holds the addresses of their counters. */
struct chunk {
    struct block blocks[CHUNK_BLOCKS];
    uint64_t counts[CHUNK_BLOCKS];
    uint64_t seen[CHUNK_BLOCKS]; /* the counters when growth was taken last */
    struct qemu_plugin_scoreboard *score;
};

struct counting counting;

static uint64_t plain_total;
static struct qemu_plugin_scoreboard *total_score;
static struct chunk *chunks[MAX_CHUNKS];
static uint32_t used_blocks;
static struct block *buckets[HASH_BUCKETS];

bool has_scoreboards(void) { return qemu_plugin_scoreboard_new != NULL; }

void prepare_counters(void) {
    if (has_scoreboards()) {
        total_score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    }
}

/* ---- the blocks ---------------------------------------------------------------------------------------------- */

static struct chunk *new_chunk(void) {
    struct chunk *chunk = grow(NULL, 1, sizeof *chunk);
    memset(chunk, 0, sizeof *chunk);
    if (has_scoreboards()) {
        chunk->score = qemu_plugin_scoreboard_new(CHUNK_BLOCKS * sizeof(uint64_t));
    }
    return chunk;
}

static struct block *new_block(uint64_t address, const uint32_t *words, uint32_t length) {
    const uint32_t index = used_blocks, chunk_index = index / CHUNK_BLOCKS;
    if (chunk_index == MAX_CHUNKS) {
        die("more than four million blocks: is the guest generating code?");
    }
    if (!chunks[chunk_index]) {
        chunks[chunk_index] = new_chunk();
    }
    struct block *block = block_at(index);
    *block = (struct block){.address = address, .length = length, .index = index};
    block->words = grow(NULL, length, sizeof *words);
    memcpy(block->words, words, length * sizeof *words);
    used_blocks++;
    return block;
}

struct block *find_block(uint64_t address, const uint32_t *words, uint32_t length) {
    struct block **bucket = &buckets[(uint32_t)((address >> 2) * 2654435761u) >> 16];
    for (struct block *block = *bucket; block; block = block->next) {
        if (block->address == address && block->length == length &&
            memcmp(block->words, words, length * sizeof *words) == 0) {
            return block;
        }
    }
    struct block *block = new_block(address, words, length);
    block->next = *bucket;
    *bucket = block;
    return block;
}

struct block *block_at(uint32_t index) { return &chunks[index / CHUNK_BLOCKS]->blocks[index % CHUNK_BLOCKS]; }

uint32_t num_blocks(void) { return used_blocks; }

/* ---- their counters ------------------------------------------------------------------------------------------ */

static void add_inline(struct qemu_plugin_tb *tb, uint64_t *plain, qemu_plugin_u64 entry, uint64_t value) {
    if (entry.score) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, entry, value);
    } else {
        qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, plain, value);
    }
}

void count_inline_in_total(struct qemu_plugin_tb *tb, size_t length) {
    add_inline(tb, &plain_total, (qemu_plugin_u64){total_score, 0}, length);
}

void count_inline(struct qemu_plugin_tb *tb, const struct block *block) {
    struct chunk *chunk = chunks[block->index / CHUNK_BLOCKS];
    const uint32_t place = block->index % CHUNK_BLOCKS;
    add_inline(tb, &chunk->counts[place], (qemu_plugin_u64){chunk->score, place * sizeof(uint64_t)}, 1);
}

void count_execution(const struct block *block) {
    chunks[block->index / CHUNK_BLOCKS]->counts[block->index % CHUNK_BLOCKS]++;
}

uint64_t total_instructions(void) {
    if (total_score) {
        return qemu_plugin_u64_sum((qemu_plugin_u64){total_score, 0});
    }
    return *(volatile uint64_t *)&plain_total;
}

static const uint64_t *chunk_counts(const struct chunk *chunk) {
    if (chunk->score && !counting.by_callback) {
        return qemu_plugin_scoreboard_find(chunk->score, counting.vcpu);
    }
    return chunk->counts;
}

void take_growth(void (*keep)(uint32_t block, uint64_t executions)) {
    for (uint32_t first = 0; first < used_blocks; first += CHUNK_BLOCKS) {
        struct chunk *chunk = chunks[first / CHUNK_BLOCKS];
        const uint64_t *counts = chunk_counts(chunk);
        const uint32_t rest = used_blocks - first, used = rest < CHUNK_BLOCKS ? rest : CHUNK_BLOCKS;
        for (uint32_t i = 0; i < used; i++) {
            if (counts[i] != chunk->seen[i]) {
                keep(first + i, counts[i] - chunk->seen[i]);
                chunk->seen[i] = counts[i];
            }
        }
    }
}
