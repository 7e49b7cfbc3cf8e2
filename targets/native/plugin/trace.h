/* The trace stream: each executed block of the counted region, with its memory accesses. README.md has its bytes. */
#ifndef EDGEKIT_TRACE_H
#define EDGEKIT_TRACE_H

#include "blocks.h"

/* Open the pipe; false where that fails. */
bool open_trace(const char *path);

/* What to do, before the guest is stopped, when the reader goes away. */
void on_trace_lost(void (*save)(void));

/* Whether there is a stream; all that is below does nothing without one. */
bool is_tracing(void);

/* A block is executed: what it accesses follows. */
void trace_execution(struct block *block);

/* The block under way accesses memory by its instruction of this number. */
void trace_access(uint32_t instruction, bool is_store, uint64_t address);

/* The block under way has ended: what comes next belongs to another segment. */
void trace_flush_block(void);
void trace_segment(uint32_t segment);

/* Write the end and close the pipe. */
void end_trace(void);

#endif
