/*
 * The course of a guest: start, load, ready, the counted region ("steady"), done.
 *
 * While the guest loads and warms up, each block only adds its length to one total. At the marker STEADY_BEGIN QEMU
 * throws its translations away, and from the next guest instruction on each block has a counter of its own. At a
 * segment boundary (a watched function is called, a marker, a system call that was named) the growth of every counter
 * since the last boundary is kept.
 */
#ifndef EDGEKIT_REGION_H
#define EDGEKIT_REGION_H

#include "qemu_plugin.h"
#include "segments.h"

#define MARKER_SYSCALL 5000 /* the guest's ../marker.h */

/* Before anything of the guest runs: where the count file goes, and how to register the plugin's callbacks anew. */
void prepare_region(qemu_plugin_id_t id, const char *count_path, qemu_plugin_simple_cb_t register_callbacks);

/* Count from the guest's start to its end; where it sets markers after all, they win. */
void begin_whole(void);

/* Around what reads or changes blocks, modules and segments. */
void lock_region(void);
void unlock_region(void);

/* Whether blocks are counted one by one now, not only in total. Under the lock, or by the thread that translates. */
bool counts_blocks(void);

/* Whether this process is a copy that the guest forked, which is not counted. */
bool is_forked_child(void);

/* What happens in the guest. All but thread_begins, thread_ends and thread_runs take the lock. */
void on_marker(unsigned vcpu, uint64_t kind, uint64_t value);
void next_segment(enum boundary kind, uint64_t value);
void thread_begins(unsigned vcpu);
void thread_ends(void);
void thread_runs(unsigned vcpu); /* one that is not counted executes something */
void guest_ends(void);

/* Keep what was counted of a guest that executed too much. It is stopped next: the lock is kept. */
void stop_at_limit(void);

#endif
