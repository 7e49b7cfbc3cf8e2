/* The stream that the counting plugin writes, and its replay on several cores at once. */
#ifndef EDGEKIT_STREAM_H
#define EDGEKIT_STREAM_H

#include "pipeline.h"

#include <stdio.h>

enum { MAX_TRACE_CORES = 32 };

typedef struct {
    uint64_t cycles, instructions, mispredicted;
    MemoryCounts memory;
} SegmentResult;

/* Which way conditional branches went and where indirect ones led, learnt as a core would. */
typedef struct {
    uint8_t counters[1 << 13];
    uint64_t targets[1 << 10];
    uint32_t history;
} Predictor;

typedef struct {
    Pipeline *pipelines[MAX_TRACE_CORES];
    SegmentResult *results[MAX_TRACE_CORES];
    int num_cores;
    uint32_t num_segments, segment_capacity, segment;
    uint64_t segment_start[MAX_TRACE_CORES];
    MemoryCounts memory_start[MAX_TRACE_CORES];
    Block *blocks;
    uint32_t block_capacity;
    Predictor predictor;
    const Block *last_block;
    DecodeTable *table;
    int passes;    /* how often the stream was run: 2 where it was short enough to be kept and run again, warm */
    bool complete; /* the stream's end mark was seen */
} Trace;

void trace_init(Trace *trace, const CoreConfig *configs, int num_cores, DecodeTable *table);

/* Run the stream on all cores. A stream that fits into memory is run twice, and the second, warm run is what counts. */
void trace_run(Trace *trace, FILE *input);

/* Reads "u32 count, count words" and decodes them. */
Block stream_read_block_words(FILE *input, DecodeTable *table);

#endif
