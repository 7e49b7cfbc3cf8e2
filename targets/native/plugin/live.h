/* The live file: shared with whoever started the guest, it tells where the guest is, even after it was killed. */
#ifndef EDGEKIT_LIVE_H
#define EDGEKIT_LIVE_H

#include <stdint.h>

struct live_place {
    uint32_t phase, segment, kind, threads;
    uint64_t value, instructions;
};

/* Make it beside the count file; dies where that fails. */
void open_live(const char *count_path);
void show_live(struct live_place place);
void show_live_instructions(uint64_t instructions);

#endif
