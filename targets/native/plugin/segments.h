/* The counted region, cut at its boundaries into segments: what each block was executed in each of them. */
#ifndef EDGEKIT_SEGMENTS_H
#define EDGEKIT_SEGMENTS_H

#include <stddef.h>
#include <stdint.h>

enum boundary { BOUNDARY_BEGIN, BOUNDARY_WATCH, BOUNDARY_MARKER, BOUNDARY_SYSCALL };

/* Both are written to the count file as they are. */
struct segment {
    uint32_t kind, unused; /* kind: enum boundary */
    uint64_t value;
};
struct record {
    uint32_t segment, block;
    uint64_t count;
};

struct segment_log {
    struct segment *segments;
    struct record *records;
    size_t num_records, room_records;
    uint32_t num_segments, room_segments;
};

const struct segment_log *segment_log(void);

/* A segment begins; the one before it was closed. */
void open_segment(enum boundary kind, uint64_t value);

/* Keep what each block was executed since the last boundary, as the current segment's. */
void close_segment(void);

/* Forget all segments, and what was counted until now. */
void forget_segments(void);

#endif
