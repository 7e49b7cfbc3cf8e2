/* A thread that keeps the live file up to date, and stops a guest that executes too much. */
#ifndef EDGEKIT_WATCHDOG_H
#define EDGEKIT_WATCHDOG_H

#include <stdint.h>

/* Start it; `limit` is in instructions, 0: none. */
void start_watchdog(uint64_t limit);

#endif
