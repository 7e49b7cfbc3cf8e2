#include "stream.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCK_WORDS = 1 << 16, MAX_ACCESSES = 1 << 18, MAX_BLOCKS = 1 << 24, MAX_SEGMENTS = 1 << 24 };
#define MARK_DEFINE 0xFFFFFFFEu
#define MARK_SEGMENT 0xFFFFFFFFu
#define MARK_END 0xFFFFFFFDu
/* Streams up to this many bytes are kept and run a second time. Longer ones flush the caches by themselves. */
#define KEPT_BYTES ((size_t)192 << 20)

static void fail(const char *reason) {
    fprintf(stderr, "coresim: the stream is damaged: %s\n", reason);
    exit(3);
}

static void *grow(void *place, size_t count, size_t size) {
    void *larger = realloc(place, count * size);
    if (!larger) {
        fprintf(stderr, "coresim: out of memory\n");
        exit(2);
    }
    return larger;
}

/* ---- reading, with what was read kept for a second run ---- */

typedef struct {
    FILE *file;     /* NULL: from memory */
    uint8_t *kept;  /* what was read so far; NULL: not kept */
    size_t size, capacity, position;
} Source;

static void keep(Source *source, const void *data, size_t bytes) {
    if (source->size + bytes > KEPT_BYTES) {
        free(source->kept);
        source->kept = NULL;
        return;
    }
    if (source->size + bytes > source->capacity) {
        source->capacity = (source->size + bytes) * 2;
        source->kept = grow(source->kept, source->capacity, 1);
    }
    memcpy(source->kept + source->size, data, bytes);
    source->size += bytes;
}

static bool take(Source *source, void *data, size_t bytes) {
    if (!source->file) {
        if (source->position + bytes > source->size)
            return false;
        memcpy(data, source->kept + source->position, bytes);
        source->position += bytes;
        return true;
    }
    if (bytes && fread(data, bytes, 1, source->file) != 1)
        return false;
    if (source->kept)
        keep(source, data, bytes);
    return true;
}

static void take_all(Source *source, void *data, size_t bytes) {
    if (!take(source, data, bytes))
        fail("it ends within a record");
}

/* ---- blocks ---- */

static Block decode_block(const uint32_t *words, uint32_t count, uint64_t address, DecodeTable *table) {
    Block block = {.address = address, .num_words = count, .words = grow(NULL, count, sizeof(DecodedWord))};
    for (uint32_t i = 0; i < count; i++)
        block.words[i] = decode_table_find(table, words[i]);
    return block;
}

Block stream_read_block_words(FILE *input, DecodeTable *table) {
    static uint32_t words[MAX_BLOCK_WORDS];
    uint32_t count;
    if (fread(&count, sizeof count, 1, input) != 1 || count == 0 || count > MAX_BLOCK_WORDS ||
        fread(words, sizeof(uint32_t), count, input) != count)
        fail("a block of the blocks file is cut off, empty or too long");
    return decode_block(words, count, 0, table);
}

static void define_block(Trace *trace, Source *source) {
    static uint32_t words[MAX_BLOCK_WORDS];
    uint32_t id, count;
    uint64_t address;
    take_all(source, &id, sizeof id);
    take_all(source, &address, sizeof address);
    take_all(source, &count, sizeof count);
    if (id >= MAX_BLOCKS || count == 0 || count > MAX_BLOCK_WORDS)
        fail("a block's number or length is out of range");
    take_all(source, words, count * sizeof(uint32_t));
    if (id >= trace->block_capacity) {
        uint32_t capacity = (id + 1) * 2;
        uint64_t last = trace->last_block ? (uint64_t)(trace->last_block - trace->blocks) : 0;
        trace->blocks = grow(trace->blocks, capacity, sizeof(Block));
        memset(&trace->blocks[trace->block_capacity], 0, (capacity - trace->block_capacity) * sizeof(Block));
        trace->block_capacity = capacity;
        if (trace->last_block)
            trace->last_block = &trace->blocks[last];
    }
    if (!trace->blocks[id].words) /* the second run meets the definitions again */
        trace->blocks[id] = decode_block(words, count, address, trace->table);
}

/* ---- branches ---- */

static bool predict_direction(Predictor *predictor, uint64_t address, bool taken) {
    uint32_t slot = (uint32_t)(address >> 2) * 2654435761u >> 19;
    uint8_t *counter = &predictor->counters[(slot ^ predictor->history) & 0x1FFF];
    bool right = (*counter >= 2) == taken;
    if (taken && *counter < 3)
        ++*counter;
    if (!taken && *counter > 0)
        --*counter;
    predictor->history = (predictor->history << 1 | taken) & 0xFFF;
    return right;
}

static bool predict_target(Predictor *predictor, uint64_t address, uint64_t target) {
    uint64_t *entry = &predictor->targets[(address >> 2 ^ predictor->history) & 0x3FF];
    bool right = *entry == target;
    *entry = target;
    return right;
}

/* How control came from the last block to this one. Returns are taken to be predicted by the core's return stack. */
static BranchOutcome outcome_of(Predictor *predictor, const Block *from, uint64_t target) {
    uint8_t flags = from->words[from->num_words - 1].flags;
    uint64_t address = from->address + 4ull * (from->num_words - 1);
    BranchOutcome outcome = {.taken = target != address + 4};
    if (flags & IS_CONDITIONAL && !(flags & (ADDS_IMMEDIATE | IS_PREFETCH)))
        outcome.mispredicted = !predict_direction(predictor, address, outcome.taken);
    else if (flags & IS_INDIRECT)
        outcome.mispredicted = !predict_target(predictor, address, target);
    return outcome;
}

/* ---- segments ---- */

static MemoryCounts difference(const MemoryCounts *after, const MemoryCounts *before) {
    return (MemoryCounts){after->l1_misses - before->l1_misses,
                          after->l2_misses - before->l2_misses,
                          after->memory_reads - before->memory_reads,
                          after->memory_writes - before->memory_writes,
                          after->tlb_misses - before->tlb_misses,
                          after->table_walks - before->table_walks,
                          after->prefetches - before->prefetches};
}

static void add_counts(MemoryCounts *sum, MemoryCounts other) {
    sum->l1_misses += other.l1_misses;
    sum->l2_misses += other.l2_misses;
    sum->memory_reads += other.memory_reads;
    sum->memory_writes += other.memory_writes;
    sum->tlb_misses += other.tlb_misses;
    sum->table_walks += other.table_walks;
    sum->prefetches += other.prefetches;
}

/* Book what happened since the segment began. */
static void close_segment(Trace *trace) {
    for (int core = 0; core < trace->num_cores; core++) {
        Pipeline *pipeline = trace->pipelines[core];
        SegmentResult *result = &trace->results[core][trace->segment];
        uint64_t now = pipeline_now(pipeline);
        result->cycles += now - trace->segment_start[core];
        add_counts(&result->memory, difference(&pipeline->memory.counts, &trace->memory_start[core]));
        trace->segment_start[core] = now;
        trace->memory_start[core] = pipeline->memory.counts;
    }
}

static void open_segment(Trace *trace, uint32_t index) {
    if (index >= MAX_SEGMENTS)
        fail("a segment's number is out of range");
    if (index >= trace->segment_capacity) {
        uint32_t capacity = (index + 1) * 2;
        for (int core = 0; core < trace->num_cores; core++) {
            trace->results[core] = grow(trace->results[core], capacity, sizeof(SegmentResult));
            memset(&trace->results[core][trace->segment_capacity], 0,
                   (capacity - trace->segment_capacity) * sizeof(SegmentResult));
        }
        trace->segment_capacity = capacity;
    }
    if (index >= trace->num_segments)
        trace->num_segments = index + 1;
    trace->segment = index;
}

static void clear_results(Trace *trace) {
    for (int core = 0; core < trace->num_cores; core++)
        memset(trace->results[core], 0, trace->segment_capacity * sizeof(SegmentResult));
}

/* ---- the run ---- */

void trace_init(Trace *trace, const CoreConfig *configs, int num_cores, DecodeTable *table) {
    memset(trace, 0, sizeof *trace);
    trace->num_cores = num_cores;
    trace->table = table;
    for (int core = 0; core < num_cores; core++) {
        trace->pipelines[core] = grow(NULL, 1, sizeof(Pipeline));
        pipeline_init(trace->pipelines[core], &configs[core], false);
    }
    open_segment(trace, 0);
}

/* The accesses of one execution; neighbours of one instruction in one line are merged. */
static uint32_t take_accesses(Source *source, uint32_t count, Access *accesses) {
    static uint64_t raw[MAX_ACCESSES];
    if (count > MAX_ACCESSES)
        fail("too many accesses in a block");
    take_all(source, raw, count * sizeof(uint64_t));
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        Access access = {raw[i] >> 12, (uint32_t)(raw[i] >> 1 & 0x7FF), raw[i] & 1};
        const Access *last = kept ? &accesses[kept - 1] : NULL;
        bool same = last && last->instruction == access.instruction && last->store == access.store &&
                    last->address >> LINE_SHIFT == access.address >> LINE_SHIFT;
        if (!same)
            accesses[kept++] = access;
    }
    return kept;
}

static void execute_block(Trace *trace, Source *source, uint32_t id, uint32_t count) {
    static Access accesses[MAX_ACCESSES];
    if (id >= trace->block_capacity || !trace->blocks[id].words)
        fail("a block is executed before it is defined");
    const Block *block = &trace->blocks[id];
    uint32_t kept = take_accesses(source, count, accesses);
    BranchOutcome outcome = {0};
    if (trace->last_block)
        outcome = outcome_of(&trace->predictor, trace->last_block, block->address);
    trace->last_block = block;
    for (int core = 0; core < trace->num_cores; core++) {
        pipeline_branch(trace->pipelines[core], outcome);
        pipeline_run(trace->pipelines[core], block, accesses, kept);
        SegmentResult *result = &trace->results[core][trace->segment];
        result->instructions += block->num_words;
        result->mispredicted += outcome.mispredicted;
    }
}

/* One pass over the stream; returns whether its end mark was there. */
static bool run_pass(Trace *trace, Source *source) {
    uint32_t mark, value;
    trace->last_block = NULL;
    open_segment(trace, 0);
    while (take(source, &mark, sizeof mark)) {
        if (mark == MARK_END) {
            close_segment(trace);
            return true;
        }
        if (mark == MARK_DEFINE) {
            define_block(trace, source);
            continue;
        }
        take_all(source, &value, sizeof value);
        if (mark == MARK_SEGMENT) {
            close_segment(trace);
            open_segment(trace, value);
        } else {
            execute_block(trace, source, mark, value);
        }
    }
    close_segment(trace);
    return false;
}

void trace_run(Trace *trace, FILE *input) {
    Source source = {.file = input, .kept = grow(NULL, 1, 1), .capacity = 1};
    setvbuf(input, NULL, _IOFBF, 1 << 20);
    trace->complete = run_pass(trace, &source);
    trace->passes = 1;
    if (source.kept && trace->complete) {
        clear_results(trace);
        source.file = NULL;
        (void)run_pass(trace, &source);
        trace->passes = 2;
    }
    free(source.kept);
}
