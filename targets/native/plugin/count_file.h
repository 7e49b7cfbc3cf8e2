/* The count file: all that was counted, in the bytes that README.md lists. */
#ifndef EDGEKIT_COUNT_FILE_H
#define EDGEKIT_COUNT_FILE_H

#include <stdbool.h>
#include <stdint.h>

enum status { STATUS_COMPLETE, STATUS_LIMIT, STATUS_TRACE_LOST, STATUS_UNFINISHED, STATUS_NO_STEADY };

/* What the file says besides modules, blocks and segments. */
struct count_summary {
    enum status status;
    uint32_t num_threads;
    bool is_exact;
    uint64_t load_instructions;
};

/* Write it whole or not at all; dies where that fails. */
void write_count_file(const char *path, struct count_summary summary);

#endif
