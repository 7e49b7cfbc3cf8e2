#define _GNU_SOURCE
#include "region.h"

#include <pthread.h>
#include <string.h>

#include "blocks.h"
#include "count_file.h"
#include "live.h"
#include "modules.h"
#include "trace.h"

#define MAX_VCPUS 4096u

enum marker { LOAD_BEGIN = 1, LOAD_END = 2, STEADY_BEGIN = 3, STEADY_END = 4, SEGMENT = 5 };
enum phase { PHASE_START, PHASE_LOAD, PHASE_READY, PHASE_STEADY, PHASE_DONE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static qemu_plugin_id_t plugin_id;
static qemu_plugin_simple_cb_t register_again;
static const char *out_path;
static bool is_child;

static enum phase phase;
static bool is_marked; /* the counted region began at a marker, not at the guest's start */
static bool is_counting_blocks;
static uint64_t load_start, load_instructions;

static int live_vcpus;
static bool vcpu_ran[MAX_VCPUS];
static uint32_t num_threads; /* that executed anything in the counted region */
static bool is_exact = true;

void lock_region(void) { pthread_mutex_lock(&lock); }

void unlock_region(void) { pthread_mutex_unlock(&lock); }

bool counts_blocks(void) { return is_counting_blocks; }

bool is_forked_child(void) { return is_child; }

/* ---- what others see ----------------------------------------------------------------------------------------- */

static void show_place(void) {
    const struct segment_log *log = segment_log();
    struct live_place place = {
        .phase = (uint32_t)phase, .threads = num_threads, .instructions = total_instructions()};
    if (log->num_segments) {
        place.segment = log->num_segments - 1;
        place.kind = log->segments[place.segment].kind;
        place.value = log->segments[place.segment].value;
    }
    show_live(place);
}

static void save(enum status status) {
    write_count_file(out_path, (struct count_summary){status, num_threads, is_exact, load_instructions});
}

static void save_without_trace(void) { save(STATUS_TRACE_LOST); }

/* ---- phases -------------------------------------------------------------------------------------------------- */

static void begin_segment(enum boundary kind, uint64_t value) {
    open_segment(kind, value);
    show_place();
}

static void begin_steady(unsigned vcpu) {
    if (segment_log()->num_segments) { /* a whole program that turns out to have markers */
        forget_segments();
    }
    phase = PHASE_STEADY;
    counting.vcpu = vcpu;
    num_threads = 1;
    memset(vcpu_ran, 0, sizeof vcpu_ran);
    begin_segment(BOUNDARY_BEGIN, is_marked);
}

static void end_steady(void) {
    trace_flush_block();
    close_segment();
    phase = PHASE_DONE;
    end_trace();
    save(STATUS_COMPLETE);
    show_place();
}

static void start_marked_region(unsigned vcpu) {
    is_marked = true;
    read_modules();
    if (!is_counting_blocks) { /* otherwise they are counted since the guest's start */
        counting.by_callback = live_vcpus > 1;
        is_counting_blocks = true;
        qemu_plugin_reset(plugin_id, register_again);
    }
    begin_steady(vcpu);
}

static void end_marked_region(void) {
    end_steady();
    is_counting_blocks = false;
    qemu_plugin_reset(plugin_id, register_again);
}

void on_marker(unsigned vcpu, uint64_t kind, uint64_t value) {
    lock_region();
    if (kind == LOAD_BEGIN && load_start == 0) {
        load_start = total_instructions();
        phase = phase == PHASE_START ? PHASE_LOAD : phase;
    } else if (kind == LOAD_END && load_start != 0 && load_instructions == 0) {
        load_instructions = total_instructions() - load_start;
        phase = phase == PHASE_LOAD ? PHASE_READY : phase;
    } else if (kind == STEADY_BEGIN && phase != PHASE_DONE && !is_marked) {
        start_marked_region(vcpu);
    } else if (kind == STEADY_END && phase == PHASE_STEADY && is_marked) {
        end_marked_region();
    }
    unlock_region();
    if (kind == SEGMENT) {
        next_segment(BOUNDARY_MARKER, value);
    }
}

void next_segment(enum boundary kind, uint64_t value) {
    lock_region();
    if (phase == PHASE_STEADY && !is_child) {
        trace_flush_block();
        close_segment();
        begin_segment(kind, value);
    }
    unlock_region();
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

void thread_runs(unsigned vcpu) {
    if (phase == PHASE_STEADY && vcpu != counting.vcpu && vcpu < MAX_VCPUS && !vcpu_ran[vcpu]) {
        vcpu_ran[vcpu] = true;
        num_threads++;
    }
}

void thread_begins(unsigned vcpu) {
    live_vcpus++;
    if (phase == PHASE_STEADY && vcpu != counting.vcpu && !counting.by_callback) {
        thread_runs(vcpu);
        is_exact = false; /* two threads add to the same counters from now on */
    }
}

void thread_ends(void) { live_vcpus--; }

/* ---- start and end ------------------------------------------------------------------------------------------- */

static void note_fork(void) { is_child = true; }

void prepare_region(qemu_plugin_id_t id, const char *count_path, qemu_plugin_simple_cb_t register_callbacks) {
    plugin_id = id;
    out_path = count_path;
    register_again = register_callbacks;
    open_live(count_path);
    on_trace_lost(save_without_trace);
    pthread_atfork(NULL, NULL, note_fork);
}

void begin_whole(void) {
    is_counting_blocks = true;
    begin_steady(0);
}

void guest_ends(void) {
    if (is_child || phase == PHASE_DONE) {
        return;
    }
    lock_region();
    if (phase == PHASE_STEADY && !is_marked) {
        end_steady();
    } else {
        const bool is_steady = phase == PHASE_STEADY;
        if (is_steady) {
            close_segment();
        }
        save(is_steady ? STATUS_UNFINISHED : STATUS_NO_STEADY);
        show_place();
    }
    unlock_region();
}

void stop_at_limit(void) {
    lock_region();
    if (phase == PHASE_STEADY) {
        close_segment();
    }
    if (phase != PHASE_DONE) {
        save(STATUS_LIMIT);
    }
    show_place();
}
