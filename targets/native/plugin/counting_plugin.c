/*
 * Counts what an aarch64 guest executes under qemu-aarch64, exactly, block by block. See README.md beside this file
 * for the arguments and for the bytes of the three outputs (count file, live file, trace stream).
 *
 * How it works. While the guest loads and warms up, each translation block only adds its length to one counter. At
 * the marker STEADY_BEGIN the plugin resets itself: QEMU throws its translations away, and from the next guest
 * instruction on each block has a counter of its own. At a segment boundary (a watched function is called, a
 * marker, a system call that was named) the growth of every counter since the last boundary is kept.
 *
 * The guest's addresses are the host's (QEMU's guest base is 0 for a 64-bit guest on a 64-bit host), so the guest's
 * modules are those of /proc/self/maps.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "qemu_plugin.h"

#define MARKER_SYSCALL 5000
#define MMAP_SYSCALL 222
#define CLOCK_SYSCALL 113 /* clock_gettime */
#define CLOCK_STEP_NS 1000
#define RANDOM_SYSCALL 278 /* getrandom */
#define EXIT_LIMIT 97
#define EXIT_TRACE_LOST 98

#define CHUNK_BLOCKS 4096u
#define MAX_CHUNKS 1024u
#define HASH_BUCKETS (1u << 16)
#define MAX_WATCHES 64u
#define MAX_BLOCK_LENGTH 1024u
#define MAX_PENDING (1u << 15)
#define MAX_VCPUS 4096u
#define TRACE_BUFFER_BYTES (1u << 20)
#define LINE_SHIFT 6

#define TRACE_END 0xFFFFFFFDu
#define TRACE_DEFINE 0xFFFFFFFEu
#define TRACE_SEGMENT 0xFFFFFFFFu

enum marker { LOAD_BEGIN = 1, LOAD_END = 2, STEADY_BEGIN = 3, STEADY_END = 4, SEGMENT = 5 };
enum phase { PHASE_START, PHASE_LOAD, PHASE_READY, PHASE_STEADY, PHASE_DONE };
enum status { STATUS_COMPLETE, STATUS_LIMIT, STATUS_TRACE_LOST, STATUS_UNFINISHED, STATUS_NO_STEADY };
enum boundary { BOUNDARY_BEGIN, BOUNDARY_WATCH, BOUNDARY_MARKER, BOUNDARY_SYSCALL };

struct block {
    uint64_t address;
    uint32_t *words;
    uint32_t length;
    uint32_t index;
    struct block *next; /* in its hash bucket */
    bool described;     /* in the trace stream */
};

/* Blocks never move: translated code holds the addresses of their counters. */
struct chunk {
    struct block blocks[CHUNK_BLOCKS];
    uint64_t counts[CHUNK_BLOCKS];
    uint64_t seen[CHUNK_BLOCKS]; /* the counters at the last boundary */
    struct qemu_plugin_scoreboard *score;
};

struct record {
    uint32_t segment, block;
    uint64_t count;
};

struct segment {
    uint32_t kind, unused;
    uint64_t value;
};

struct module {
    char *path;
    uint64_t base, end;
    bool used;
};

struct watch {
    const char *library;
    uint64_t offset, address; /* the address is 0 until the library is loaded */
};

/* Shared with whoever started the guest: where it is, even after it was killed. */
struct live {
    char magic[8];
    uint32_t phase, segment, kind, threads;
    uint64_t value, instructions;
};

PLUGIN_EXPORT int qemu_plugin_version = 1;
PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

static qemu_plugin_id_t plugin_id;
static insn_data_pointer_t point_to_insn_data; /* the one of the two that this QEMU has; the other stays NULL */
static insn_data_copy_t copy_insn_data;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_forked_child;

static const char *out_path;
static uint64_t limit_instructions;
static int64_t segment_syscall = -1;
static bool count_whole;
static bool is_repeatable;
static uint64_t clock_calls[MAX_VCPUS];
static uint64_t answer_address[MAX_VCPUS]; /* where a thread wants the time, or random bytes, of the call under way */
static struct watch watches[MAX_WATCHES];
static unsigned num_watches;

static enum phase phase;
static bool is_marked;     /* the counted region began at a marker, not at the guest's start */
static bool counts_blocks; /* blocks are counted one by one, not only in total */
static bool by_callback;   /* other threads are alive: count in a callback, which knows the thread */
static unsigned counting_vcpu;
static int live_vcpus;
static bool vcpu_ran[MAX_VCPUS];
static uint32_t num_threads;
static bool is_exact = true;

static uint64_t plain_total;
static struct qemu_plugin_scoreboard *total_score;
static uint64_t load_start, load_instructions;

static struct chunk *chunks[MAX_CHUNKS];
static uint32_t num_blocks;
static struct block *buckets[HASH_BUCKETS];

static struct record *records;
static size_t num_records, room_records;
static struct segment *segments;
static uint32_t num_segments, room_segments;
static struct module *modules;
static uint32_t num_modules, room_modules;
static bool modules_stale = true;
static struct live *live;

static int trace_fd = -1;
static uint8_t *trace_buffer;
static size_t trace_used;
static struct block *pending;
static uint64_t pending_accesses[MAX_PENDING];
static uint32_t num_pending;

static void register_callbacks(qemu_plugin_id_t id);
static void finish(enum status status);

/* ---- small things -------------------------------------------------------------------------------------------- */

__attribute__((noreturn)) static void die(const char *message) {
    fprintf(stderr, "edgekit counting plugin: %s\n", message);
    _exit(EXIT_FAILURE);
}

static void *grow(void *old, size_t count, size_t item) {
    void *grown = realloc(old, count * item);
    if (!grown) {
        die("out of memory");
    }
    return grown;
}

static bool has_scoreboards(void) { return qemu_plugin_scoreboard_new != NULL; }

/* QEMU compares this number before it calls anything of ours; 2 is the oldest that QEMU 9 and later accept. */
__attribute__((constructor)) static void choose_interface(void) { qemu_plugin_version = has_scoreboards() ? 2 : 1; }

static uint64_t total_instructions(void) {
    if (total_score) {
        return qemu_plugin_u64_sum((qemu_plugin_u64){total_score, 0});
    }
    return *(volatile uint64_t *)&plain_total;
}

static void add_inline(struct qemu_plugin_tb *tb, uint64_t *plain, qemu_plugin_u64 entry, uint64_t value) {
    if (entry.score) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, entry, value);
    } else {
        qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, plain, value);
    }
}

static void show_live(void) {
    live->phase = (uint32_t)phase;
    live->threads = num_threads;
    live->instructions = total_instructions();
    if (num_segments) {
        live->segment = num_segments - 1;
        live->kind = segments[num_segments - 1].kind;
        live->value = segments[num_segments - 1].value;
    }
}

/* ---- modules ------------------------------------------------------------------------------------------------- */

static void keep_module(const char *path, uint64_t start, uint64_t end, uint64_t file_offset) {
    for (uint32_t i = num_modules; i-- > 0;) {
        struct module *module = &modules[i];
        if (strcmp(module->path, path) == 0 && (file_offset != 0 || module->base == start) && start >= module->base) {
            module->end = end > module->end ? end : module->end;
            return;
        }
    }
    if (num_modules == room_modules) {
        room_modules = room_modules ? room_modules * 2 : 64;
        modules = grow(modules, room_modules, sizeof *modules);
    }
    char *copy = strdup(path);
    if (!copy) {
        die("out of memory");
    }
    modules[num_modules++] = (struct module){copy, start, end, false};
}

static void read_modules(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) {
        return;
    }
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, maps) > 0) {
        uint64_t start, end, offset;
        int path_at = 0;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %*s %n", &start, &end, &offset, &path_at) == 3 &&
            path_at > 0 && line[path_at] == '/') {
            line[strcspn(line, "\n")] = '\0';
            keep_module(line + path_at, start, end, offset);
        }
    }
    free(line);
    fclose(maps);
    modules_stale = false;
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void resolve_watches(void) {
    for (unsigned w = 0; w < num_watches; w++) {
        for (uint32_t m = 0; m < num_modules && !watches[w].address; m++) {
            if (strcmp(file_name(modules[m].path), watches[w].library) == 0) {
                watches[w].address = modules[m].base + watches[w].offset;
            }
        }
    }
}

/* ---- trace stream -------------------------------------------------------------------------------------------- */

static bool write_all(const uint8_t *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(trace_fd, bytes, size);
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

/* A reader that died must not reach the guest as SIGPIPE: the signal is held back, and taken off the queue. */
static void flush_trace(void) {
    sigset_t pipe_signal, before;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    bool ok = write_all(trace_buffer, trace_used);
    trace_used = 0;
    if (!ok) {
        const struct timespec at_once = {0, 0};
        sigtimedwait(&pipe_signal, NULL, &at_once);
        close(trace_fd);
        trace_fd = -1;
        finish(STATUS_TRACE_LOST);
        fprintf(stderr, "edgekit counting plugin: the reader of the trace went away\n");
        _exit(EXIT_TRACE_LOST);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void trace_bytes(const void *bytes, size_t size) {
    if (trace_used + size > TRACE_BUFFER_BYTES) {
        flush_trace();
    }
    memcpy(trace_buffer + trace_used, bytes, size);
    trace_used += size;
}

static void trace_block(struct block *block) {
    if (!block->described) {
        const uint32_t head[] = {TRACE_DEFINE, block->index};
        trace_bytes(head, sizeof head);
        trace_bytes(&block->address, sizeof block->address);
        trace_bytes(&block->length, sizeof block->length);
        trace_bytes(block->words, block->length * sizeof *block->words);
        block->described = true;
    }
    const uint32_t head[] = {block->index, num_pending};
    trace_bytes(head, sizeof head);
    trace_bytes(pending_accesses, num_pending * sizeof *pending_accesses);
}

static void flush_pending(void) {
    if (pending) {
        trace_block(pending);
        pending = NULL;
    }
    num_pending = 0;
}

/* ---- segments ------------------------------------------------------------------------------------------------ */

static uint64_t *chunk_counts(struct chunk *chunk) {
    if (chunk->score && !by_callback) {
        return qemu_plugin_scoreboard_find(chunk->score, counting_vcpu);
    }
    return chunk->counts;
}

static void keep_record(uint32_t block, uint64_t count) {
    if (num_records == room_records) {
        room_records = room_records ? room_records * 2 : 1u << 16;
        records = grow(records, room_records, sizeof *records);
    }
    records[num_records++] = (struct record){num_segments - 1, block, count};
}

/* Keep what each block was executed since the last boundary, as the current segment's. */
static void close_segment(void) {
    for (uint32_t first = 0; first < num_blocks; first += CHUNK_BLOCKS) {
        struct chunk *chunk = chunks[first / CHUNK_BLOCKS];
        const uint64_t *counts = chunk_counts(chunk);
        const uint32_t rest = num_blocks - first, used = rest < CHUNK_BLOCKS ? rest : CHUNK_BLOCKS;
        for (uint32_t i = 0; i < used; i++) {
            if (counts[i] != chunk->seen[i]) {
                keep_record(first + i, counts[i] - chunk->seen[i]);
                chunk->seen[i] = counts[i];
            }
        }
    }
}

static void open_segment(enum boundary kind, uint64_t value) {
    if (num_segments == room_segments) {
        room_segments = room_segments ? room_segments * 2 : 1024;
        segments = grow(segments, room_segments, sizeof *segments);
    }
    segments[num_segments++] = (struct segment){(uint32_t)kind, 0, value};
    if (trace_fd >= 0) {
        const uint32_t head[] = {TRACE_SEGMENT, num_segments - 1};
        trace_bytes(head, sizeof head);
    }
    show_live();
}

static void next_segment(enum boundary kind, uint64_t value) {
    pthread_mutex_lock(&lock);
    if (phase == PHASE_STEADY && !is_forked_child) {
        flush_pending();
        close_segment();
        open_segment(kind, value);
    }
    pthread_mutex_unlock(&lock);
}

/* Forget what was counted before the first segment (a whole program that turns out to have markers). */
static void forget_counts(void) {
    num_records = 0;
    num_segments = 1;
    close_segment();
    num_records = 0;
    num_segments = 0;
}

/* ---- phases -------------------------------------------------------------------------------------------------- */

static void begin_steady(unsigned vcpu) {
    if (num_segments) {
        forget_counts();
    }
    phase = PHASE_STEADY;
    counting_vcpu = vcpu;
    num_threads = 1;
    memset(vcpu_ran, 0, sizeof vcpu_ran);
    open_segment(BOUNDARY_BEGIN, is_marked);
}

static void end_steady(void) {
    flush_pending();
    close_segment();
    phase = PHASE_DONE;
    if (trace_fd >= 0) {
        const uint32_t end = TRACE_END;
        trace_bytes(&end, sizeof end);
        flush_trace();
        close(trace_fd);
        trace_fd = -1;
    }
    finish(STATUS_COMPLETE);
    show_live();
}

static void start_marked_region(unsigned vcpu) {
    is_marked = true;
    read_modules();
    resolve_watches();
    if (!counts_blocks) { /* otherwise blocks are counted since the guest's start: `whole` */
        by_callback = live_vcpus > 1;
        counts_blocks = true;
        qemu_plugin_reset(plugin_id, register_callbacks);
    }
    begin_steady(vcpu);
}

static void on_marker(unsigned vcpu, uint64_t kind, uint64_t value) {
    pthread_mutex_lock(&lock);
    if (kind == LOAD_BEGIN && load_start == 0) {
        load_start = total_instructions();
        phase = phase == PHASE_START ? PHASE_LOAD : phase;
    } else if (kind == LOAD_END && load_start != 0 && load_instructions == 0) {
        load_instructions = total_instructions() - load_start;
        phase = phase == PHASE_LOAD ? PHASE_READY : phase;
    } else if (kind == STEADY_BEGIN && phase != PHASE_DONE && !is_marked) {
        start_marked_region(vcpu);
    } else if (kind == STEADY_END && phase == PHASE_STEADY && is_marked) {
        end_steady();
        counts_blocks = false;
        qemu_plugin_reset(plugin_id, register_callbacks);
    }
    pthread_mutex_unlock(&lock);
    if (kind == SEGMENT) {
        next_segment(BOUNDARY_MARKER, value);
    }
}

/* ---- callbacks of translated code ---------------------------------------------------------------------------- */

static void on_watched(unsigned vcpu, void *watch) {
    if (vcpu == counting_vcpu) {
        next_segment(BOUNDARY_WATCH, (uint64_t)((struct watch *)watch - watches));
    }
}

static void note_thread(unsigned vcpu) {
    if (phase == PHASE_STEADY && vcpu != counting_vcpu && vcpu < MAX_VCPUS && !vcpu_ran[vcpu]) {
        vcpu_ran[vcpu] = true;
        num_threads++;
    }
}

static void on_block(unsigned vcpu, void *data) {
    struct block *block = data;
    if (vcpu != counting_vcpu) {
        note_thread(vcpu);
        return;
    }
    if (by_callback) {
        chunks[block->index / CHUNK_BLOCKS]->counts[block->index % CHUNK_BLOCKS]++;
    }
    if (trace_fd >= 0 && phase == PHASE_STEADY) {
        flush_pending();
        pending = block;
    }
}

/* QEMU splits wide accesses; the pieces of one instruction in one cache line are one access again. */
static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *place) {
    if (vcpu != counting_vcpu || trace_fd < 0 || !pending) {
        return;
    }
    const uint64_t low = (uint64_t)(uintptr_t)place << 1 | (qemu_plugin_mem_is_store(info) ? 1 : 0);
    if (num_pending) {
        const uint64_t last = pending_accesses[num_pending - 1];
        if ((last & 0xFFF) == low && last >> (12 + LINE_SHIFT) == (address & (UINT64_MAX >> 12)) >> LINE_SHIFT) {
            return;
        }
    }
    if (num_pending == MAX_PENDING) {
        die("a block with more memory accesses than expected");
    }
    pending_accesses[num_pending++] = address << 12 | low;
}

/* ---- translation --------------------------------------------------------------------------------------------- */

static void copy_words(const struct qemu_plugin_tb *tb, uint32_t *words, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (copy_insn_data) {
            copy_insn_data(insn, &words[i], sizeof words[i]);
        } else {
            memcpy(&words[i], point_to_insn_data(insn), sizeof words[i]);
        }
    }
}

static struct block *new_block(uint64_t address, const uint32_t *words, uint32_t length) {
    const uint32_t index = num_blocks, chunk_index = index / CHUNK_BLOCKS;
    if (chunk_index == MAX_CHUNKS) {
        die("more than four million blocks: is the guest generating code?");
    }
    if (!chunks[chunk_index]) {
        chunks[chunk_index] = grow(NULL, 1, sizeof(struct chunk));
        memset(chunks[chunk_index], 0, sizeof(struct chunk));
        if (has_scoreboards()) {
            chunks[chunk_index]->score = qemu_plugin_scoreboard_new(CHUNK_BLOCKS * sizeof(uint64_t));
        }
    }
    struct block *block = &chunks[chunk_index]->blocks[index % CHUNK_BLOCKS];
    *block = (struct block){.address = address, .length = length, .index = index};
    block->words = grow(NULL, length, sizeof *words);
    memcpy(block->words, words, length * sizeof *words);
    num_blocks++;
    return block;
}

/* The same code translated again is the same block; other code at the same address is another. */
static struct block *find_block(uint64_t address, const uint32_t *words, uint32_t length) {
    struct block **bucket = &buckets[(uint32_t)((address >> 2) * 2654435761u) >> 16];
    for (struct block *block = *bucket; block; block = block->next) {
        if (block->address == address && block->length == length &&
            memcmp(block->words, words, length * sizeof *words) == 0) {
            return block;
        }
    }
    struct block *block = new_block(address, words, length);
    block->next = *bucket;
    *bucket = block;
    return block;
}

/* Before the counters: the call of a watched function belongs to the segment that it opens. */
static void instrument_watches(struct qemu_plugin_tb *tb, const struct block *block) {
    for (unsigned w = 0; w < num_watches; w++) {
        const uint64_t at = watches[w].address - block->address;
        if (!watches[w].address || at >= 4ull * block->length) {
            continue;
        }
        if (at == 0) {
            qemu_plugin_register_vcpu_tb_exec_cb(tb, on_watched, QEMU_PLUGIN_CB_NO_REGS, &watches[w]);
        } else {
            qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_tb_get_insn(tb, at / 4), on_watched,
                                                   QEMU_PLUGIN_CB_NO_REGS, &watches[w]);
        }
    }
}

/* Loads and stores: bits 28..25 of an A64 word are x1x0. */
static bool may_access_memory(uint32_t word) { return ((word >> 25) & 5) == 4; }

static void instrument_block(struct qemu_plugin_tb *tb, struct block *block) {
    struct chunk *chunk = chunks[block->index / CHUNK_BLOCKS];
    const uint32_t place = block->index % CHUNK_BLOCKS;
    instrument_watches(tb, block);
    if (by_callback || trace_fd >= 0) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block);
    }
    if (!by_callback) {
        add_inline(tb, &chunk->counts[place], (qemu_plugin_u64){chunk->score, place * sizeof(uint64_t)}, 1);
    }
    for (uint32_t i = 0; trace_fd >= 0 && i < block->length; i++) {
        if (may_access_memory(block->words[i])) {
            qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, (void *)(uintptr_t)i);
        }
    }
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    const size_t length = qemu_plugin_tb_n_insns(tb);
    add_inline(tb, &plain_total, (qemu_plugin_u64){total_score, 0}, length);
    if (!counts_blocks) {
        return;
    }
    if (length > MAX_BLOCK_LENGTH) {
        die("a block longer than QEMU makes them");
    }
    uint32_t words[MAX_BLOCK_LENGTH];
    copy_words(tb, words, length);
    pthread_mutex_lock(&lock);
    if (modules_stale) {
        read_modules();
        resolve_watches();
    }
    instrument_block(tb, find_block(qemu_plugin_tb_vaddr(tb), words, (uint32_t)length));
    pthread_mutex_unlock(&lock);
}

/* ---- callbacks of the process -------------------------------------------------------------------------------- */

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (is_forked_child) {
        return;
    }
    if (vcpu < MAX_VCPUS) {
        answer_address[vcpu] = number == CLOCK_SYSCALL ? a2 : number == RANDOM_SYSCALL ? a1 : 0;
    }
    if (number == MARKER_SYSCALL) {
        on_marker(vcpu, a1, a2);
    } else if (number == MMAP_SYSCALL) {
        modules_stale = true;
    } else if (number == segment_syscall && vcpu == counting_vcpu) {
        next_segment(BOUNDARY_SYSCALL, (uint64_t)number);
    }
}

/* The kernel makes the write: it refuses a wrong address, where a plain store would fault. */
static void answer(unsigned vcpu, const void *bytes, size_t size) {
    struct iovec from = {(void *)(uintptr_t)bytes, size}, to = {(void *)(uintptr_t)answer_address[vcpu], size};
    if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != (ssize_t)size) {
        die("this system does not let a program write into itself (process_vm_writev): repeatable=1 needs that");
    }
}

/*
 * Each call of a thread finds its clock one microsecond later: code that subtracts or prints times then takes the same
 * branches. A clock for all threads would move on by the calls of those that spin, which nobody can repeat.
 */
static void answer_time(unsigned vcpu) {
    const uint64_t now_ns = ++clock_calls[vcpu] * CLOCK_STEP_NS;
    const int64_t time[2] = {(int64_t)(now_ns / 1000000000), (int64_t)(now_ns % 1000000000)};
    answer(vcpu, time, sizeof time);
}

static void answer_random(unsigned vcpu, size_t size) {
    uint8_t bytes[256];
    memset(bytes, 0x5A, sizeof bytes);
    answer(vcpu, bytes, size < sizeof bytes ? size : sizeof bytes);
}

static void on_syscall_return(qemu_plugin_id_t id, unsigned vcpu, int64_t number, int64_t result) {
    (void)id;
    if (is_forked_child || vcpu >= MAX_VCPUS || !answer_address[vcpu]) {
        return;
    }
    if (number == CLOCK_SYSCALL && result == 0) {
        answer_time(vcpu);
    } else if (number == RANDOM_SYSCALL && result > 0) {
        answer_random(vcpu, (size_t)result);
    }
}

static void on_vcpu_init(qemu_plugin_id_t id, unsigned vcpu) {
    (void)id;
    live_vcpus++;
    if (phase == PHASE_STEADY && vcpu != counting_vcpu && !by_callback) {
        note_thread(vcpu);
        is_exact = false; /* two threads add to the same counters from now on */
    }
}

static void on_vcpu_exit(qemu_plugin_id_t id, unsigned vcpu) {
    (void)id, (void)vcpu;
    live_vcpus--;
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *unused) {
    (void)id, (void)unused;
    if (is_forked_child || phase == PHASE_DONE) {
        return;
    }
    pthread_mutex_lock(&lock);
    if (phase == PHASE_STEADY && !is_marked) {
        end_steady();
    } else {
        const bool is_steady = phase == PHASE_STEADY;
        if (is_steady) {
            close_segment();
        }
        finish(is_steady ? STATUS_UNFINISHED : STATUS_NO_STEADY);
        show_live();
    }
    pthread_mutex_unlock(&lock);
}

static void register_callbacks(qemu_plugin_id_t id) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    if (is_repeatable) {
        qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    }
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init);
    qemu_plugin_register_vcpu_exit_cb(id, on_vcpu_exit);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
}

/* ---- the count file ------------------------------------------------------------------------------------------ */

static void put(FILE *file, const void *bytes, size_t size) {
    if (size && fwrite(bytes, size, 1, file) != 1) {
        die("the count file cannot be written: is the disk full?");
    }
}

static struct block *block_at(uint32_t index) { return &chunks[index / CHUNK_BLOCKS]->blocks[index % CHUNK_BLOCKS]; }

static uint32_t mark_used_modules(void) {
    uint32_t used = 0;
    for (uint32_t m = 0; m < num_modules; m++) {
        modules[m].used = false;
        for (uint32_t i = 0; i < num_blocks && !modules[m].used; i++) {
            const uint64_t address = block_at(i)->address;
            modules[m].used = address >= modules[m].base && address < modules[m].end;
        }
        used += modules[m].used;
    }
    return used;
}

static void put_modules(FILE *file) {
    for (uint32_t m = 0; m < num_modules; m++) {
        if (modules[m].used) {
            const uint64_t place[] = {modules[m].base, modules[m].end, strlen(modules[m].path)};
            put(file, place, sizeof place);
            put(file, modules[m].path, place[2]);
        }
    }
}

static void put_blocks(FILE *file) {
    for (uint32_t i = 0; i < num_blocks; i++) {
        put(file, &block_at(i)->address, sizeof(uint64_t));
    }
    for (uint32_t i = 0; i < num_blocks; i++) {
        put(file, &block_at(i)->length, sizeof(uint32_t));
    }
    for (uint32_t i = 0; i < num_blocks; i++) {
        put(file, block_at(i)->words, block_at(i)->length * sizeof(uint32_t));
    }
}

static void finish(enum status status) {
    read_modules();
    char unfinished[4096];
    if (snprintf(unfinished, sizeof unfinished, "%s.part", out_path) >= (int)sizeof unfinished) {
        die("the path of the count file is too long");
    }
    FILE *file = fopen(unfinished, "wbe");
    if (!file) {
        die("the count file cannot be opened");
    }
    const uint32_t used_modules = mark_used_modules();
    const uint32_t head[] = {(uint32_t)status, num_threads, used_modules, num_blocks, num_segments, is_exact};
    const uint64_t totals[] = {num_records, total_instructions(), load_instructions};
    put(file, "EKCOUNT1", 8);
    put(file, head, sizeof head);
    put(file, totals, sizeof totals);
    put_modules(file);
    put_blocks(file);
    put(file, segments, num_segments * sizeof *segments);
    put(file, records, num_records * sizeof *records);
    if (fclose(file) != 0 || rename(unfinished, out_path) != 0) {
        die("the count file cannot be written: is the disk full?");
    }
}

/* ---- the watchdog: the instruction limit and the live file --------------------------------------------------- */

static void *watch_over(void *unused) {
    (void)unused;
    const struct timespec pause = {0, 20 * 1000 * 1000};
    for (;;) {
        nanosleep(&pause, NULL);
        live->instructions = total_instructions();
        if (limit_instructions && live->instructions > limit_instructions) {
            pthread_mutex_lock(&lock);
            if (phase == PHASE_STEADY) {
                close_segment();
            }
            if (phase != PHASE_DONE) {
                finish(STATUS_LIMIT);
            }
            show_live();
            fprintf(stderr, "edgekit counting plugin: stopped after %" PRIu64 " instructions (limit %" PRIu64 ")\n",
                    live->instructions, limit_instructions);
            _exit(EXIT_LIMIT);
        }
    }
    return NULL;
}

static void start_watchdog(void) {
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

static void open_live(void) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s.live", out_path) >= (int)sizeof path) {
        die("the path of the count file is too long");
    }
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof *live) != 0) {
        die("the live file beside the count file cannot be written");
    }
    live = mmap(NULL, sizeof *live, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (live == MAP_FAILED) {
        die("the live file cannot be mapped");
    }
    memcpy(live->magic, "EKLIVE01", sizeof live->magic);
}

/* ---- installation -------------------------------------------------------------------------------------------- */

static void note_fork(void) { is_forked_child = true; }

static bool parse_number(const char *text, int base, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, base);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_watch(char *text) {
    char *plus = strrchr(text, '+');
    if (!plus || num_watches == MAX_WATCHES || !parse_number(plus + 1, 16, &watches[num_watches].offset)) {
        return false;
    }
    *plus = '\0';
    watches[num_watches++].library = text;
    return true;
}

static bool parse_argument(char *argument) {
    char *value = strchr(argument, '=');
    if (!value) {
        return false;
    }
    *value++ = '\0';
    uint64_t number = 0;
    if (strcmp(argument, "out") == 0) {
        out_path = value;
        return true;
    }
    if (strcmp(argument, "watch") == 0) {
        return parse_watch(value);
    }
    if (strcmp(argument, "trace") == 0) {
        trace_fd = open(value, O_WRONLY | O_CLOEXEC);
        return trace_fd >= 0;
    }
    if (strcmp(argument, "limit") == 0) {
        return parse_number(value, 10, &limit_instructions);
    }
    if (strcmp(argument, "whole") == 0 && parse_number(value, 10, &number)) {
        count_whole = number != 0;
        return true;
    }
    if (strcmp(argument, "repeatable") == 0 && parse_number(value, 10, &number)) {
        is_repeatable = number != 0;
        return true;
    }
    if (strcmp(argument, "segment_syscall") == 0 && parse_number(value, 10, &number)) {
        segment_syscall = (int64_t)number;
        return true;
    }
    return false;
}

static int refuse(const char *what, const char *detail) {
    fprintf(stderr, "edgekit counting plugin: %s%s\n", what, detail);
    return 1;
}

static int check_host(const qemu_info_t *info) {
    if (info->system_emulation || strcmp(info->target_name, "aarch64") != 0) {
        return refuse("works with qemu-aarch64 (user mode) only; this is for ", info->target_name);
    }
    if (!has_scoreboards() && !qemu_plugin_register_vcpu_tb_exec_inline) {
        return refuse("this QEMU has neither of the inline counters that the plugin knows", "");
    }
    return 0;
}

/* One name, two signatures: looked up at run time, because a linked call could have only one. */
static void find_insn_data(int version) {
    void *found = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
    if (!found) {
        die("this QEMU has no qemu_plugin_insn_data");
    }
    if (version >= 3) {
        copy_insn_data = (insn_data_copy_t)found;
    } else {
        point_to_insn_data = (insn_data_pointer_t)found;
    }
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    if (check_host(info) != 0) {
        return 1;
    }
    for (int i = 0; i < argc; i++) {
        if (!parse_argument(argv[i])) {
            return refuse("wrong argument: ", argv[i]);
        }
    }
    if (!out_path) {
        return refuse("the argument out=FILE is missing", "");
    }
    plugin_id = id;
    find_insn_data(info->version.cur);
    if (has_scoreboards()) {
        total_score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    }
    if (trace_fd >= 0) {
        trace_buffer = grow(NULL, TRACE_BUFFER_BYTES, 1);
    }
    open_live();
    pthread_atfork(NULL, NULL, note_fork);
    if (count_whole) {
        counts_blocks = true;
        begin_steady(0);
    }
    start_watchdog();
    register_callbacks(id);
    return 0;
}
