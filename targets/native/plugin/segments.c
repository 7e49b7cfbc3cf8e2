#include "segments.h"

#include "blocks.h"
#include "checked.h"
#include "trace.h"

static struct segment_log kept;

const struct segment_log *segment_log(void) { return &kept; }

void open_segment(enum boundary kind, uint64_t value) {
    if (kept.num_segments == kept.room_segments) {
        kept.room_segments = kept.room_segments ? kept.room_segments * 2 : 1024;
        kept.segments = grow(kept.segments, kept.room_segments, sizeof *kept.segments);
    }
    kept.segments[kept.num_segments++] = (struct segment){(uint32_t)kind, 0, value};
    trace_segment(kept.num_segments - 1);
}

static void keep_record(uint32_t block, uint64_t executions) {
    if (kept.num_records == kept.room_records) {
        kept.room_records = kept.room_records ? kept.room_records * 2 : 1u << 16;
        kept.records = grow(kept.records, kept.room_records, sizeof *kept.records);
    }
    kept.records[kept.num_records++] = (struct record){kept.num_segments - 1, block, executions};
}

void close_segment(void) { take_growth(keep_record); }

static void drop_record(uint32_t block, uint64_t executions) { (void)block, (void)executions; }

void forget_segments(void) {
    take_growth(drop_record);
    kept.num_records = 0;
    kept.num_segments = 0;
}
