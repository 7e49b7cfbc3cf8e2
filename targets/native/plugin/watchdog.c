#define _GNU_SOURCE
#include "watchdog.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "blocks.h"
#include "checked.h"
#include "live.h"
#include "region.h"

#define EXIT_LIMIT 97
#define PAUSE_NS (20 * 1000 * 1000)

static uint64_t limit_instructions;

static void *watch_over(void *unused) {
    (void)unused;
    const struct timespec pause = {0, PAUSE_NS};
    for (;;) {
        nanosleep(&pause, NULL);
        const uint64_t executed = total_instructions();
        show_live_instructions(executed);
        if (limit_instructions && executed > limit_instructions) {
            stop_at_limit();
            fprintf(stderr, "edgekit counting plugin: stopped after %" PRIu64 " instructions (limit %" PRIu64 ")\n",
                    executed, limit_instructions);
            _exit(EXIT_LIMIT);
        }
    }
    return NULL;
}

void start_watchdog(uint64_t limit) {
    limit_instructions = limit;
    sigset_t all, before; /* the guest's signals are for the guest's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch_over, NULL) != 0) {
        die("no thread for the instruction limit");
    }
    pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
