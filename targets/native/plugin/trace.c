#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"

#define EXIT_TRACE_LOST 98
#define BUFFER_BYTES (1u << 20)
#define MAX_ACCESSES (1u << 15)
#define LINE_SHIFT 6

#define STREAM_END 0xFFFFFFFDu
#define STREAM_DEFINE 0xFFFFFFFEu
#define STREAM_SEGMENT 0xFFFFFFFFu

static int fd = -1;
static void (*save_before_exit)(void);
static uint8_t *buffer;
static size_t buffer_used;
static struct block *pending; /* the block under way */
static uint64_t accesses[MAX_ACCESSES];
static uint32_t num_accesses;

/* ---- bytes --------------------------------------------------------------------------------------------------- */

static bool write_all(const uint8_t *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        if (written > 0) {
            bytes += written;
            size -= (size_t)written;
        }
    }
    return true;
}

__attribute__((noreturn)) static void stop_without_reader(void) {
    close(fd);
    fd = -1;
    save_before_exit();
    fprintf(stderr, "edgekit counting plugin: the reader of the trace went away\n");
    _exit(EXIT_TRACE_LOST);
}

/* A reader that died must not reach the guest as SIGPIPE: the signal is held back, and taken off the queue. */
static void flush(void) {
    sigset_t pipe_signal, before;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    const bool ok = write_all(buffer, buffer_used);
    buffer_used = 0;
    if (!ok) {
        const struct timespec at_once = {0, 0};
        sigtimedwait(&pipe_signal, NULL, &at_once);
        stop_without_reader();
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void put(const void *bytes, size_t size) {
    if (buffer_used + size > BUFFER_BYTES) {
        flush();
    }
    memcpy(buffer + buffer_used, bytes, size);
    buffer_used += size;
}

/* ---- the stream ---------------------------------------------------------------------------------------------- */

bool open_trace(const char *path) {
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    buffer = grow(buffer, BUFFER_BYTES, 1);
    return true;
}

void on_trace_lost(void (*save)(void)) { save_before_exit = save; }

bool is_tracing(void) { return fd >= 0; }

static void put_block(struct block *block) {
    if (!block->described) {
        const uint32_t head[] = {STREAM_DEFINE, block->index};
        put(head, sizeof head);
        put(&block->address, sizeof block->address);
        put(&block->length, sizeof block->length);
        put(block->words, block->length * sizeof *block->words);
        block->described = true;
    }
    const uint32_t head[] = {block->index, num_accesses};
    put(head, sizeof head);
    put(accesses, num_accesses * sizeof *accesses);
}

void trace_flush_block(void) {
    if (pending) {
        put_block(pending);
        pending = NULL;
    }
    num_accesses = 0;
}

void trace_execution(struct block *block) {
    if (fd >= 0) {
        trace_flush_block();
        pending = block;
    }
}

/* QEMU splits wide accesses; the pieces of one instruction in one cache line are one access again. */
void trace_access(uint32_t instruction, bool is_store, uint64_t address) {
    if (fd < 0 || !pending) {
        return;
    }
    const uint64_t low = (uint64_t)instruction << 1 | (is_store ? 1 : 0);
    if (num_accesses) {
        const uint64_t last = accesses[num_accesses - 1];
        if ((last & 0xFFF) == low && last >> (12 + LINE_SHIFT) == (address & (UINT64_MAX >> 12)) >> LINE_SHIFT) {
            return;
        }
    }
    if (num_accesses == MAX_ACCESSES) {
        die("a block with more memory accesses than expected");
    }
    accesses[num_accesses++] = address << 12 | low;
}

void trace_segment(uint32_t segment) {
    if (fd >= 0) {
        const uint32_t head[] = {STREAM_SEGMENT, segment};
        put(head, sizeof head);
    }
}

void end_trace(void) {
    if (fd >= 0) {
        const uint32_t end = STREAM_END;
        put(&end, sizeof end);
        flush();
        close(fd);
        fd = -1;
    }
}
