#define _GNU_SOURCE
#include "instrument.h"

#include <dlfcn.h>
#include <string.h>

#include "blocks.h"
#include "checked.h"
#include "modules.h"
#include "region.h"
#include "trace.h"

#define MAX_BLOCK_LENGTH 1024u

static insn_data_pointer_t point_to_insn_data; /* the one of the two that this QEMU has; the other stays NULL */
static insn_data_copy_t copy_insn_data;

/* One name, two signatures: looked up at run time, because a linked call could have only one. */
void prepare_instrument(int interface_version) {
    void *found = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
    if (!found) {
        die("this QEMU has no qemu_plugin_insn_data");
    }
    if (interface_version >= 3) {
        copy_insn_data = (insn_data_copy_t)found;
    } else {
        point_to_insn_data = (insn_data_pointer_t)found;
    }
}

/* ---- called by translated code ------------------------------------------------------------------------------- */

static void on_watched(unsigned vcpu, void *place) {
    if (vcpu == counting.vcpu) {
        next_segment(BOUNDARY_WATCH, (uint64_t)(uintptr_t)place);
    }
}

static void on_block(unsigned vcpu, void *data) {
    struct block *block = data;
    if (vcpu != counting.vcpu) {
        thread_runs(vcpu);
        return;
    }
    if (counting.by_callback) {
        count_execution(block);
    }
    trace_execution(block);
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *place) {
    if (vcpu == counting.vcpu) {
        trace_access((uint32_t)(uintptr_t)place, qemu_plugin_mem_is_store(info), address);
    }
}

/* ---- called by the translator -------------------------------------------------------------------------------- */

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

/* Before the counters: the call of a watched function belongs to the segment that it opens. */
static void instrument_watches(struct qemu_plugin_tb *tb, const struct block *block) {
    for (uint32_t w = 0; w < num_watches(); w++) {
        const struct watch *watch = watch_at(w);
        const uint64_t at = watch->address - block->address;
        void *place = (void *)(uintptr_t)w;
        if (!watch->address || at >= 4ull * block->length) {
            continue;
        }
        if (at == 0) {
            qemu_plugin_register_vcpu_tb_exec_cb(tb, on_watched, QEMU_PLUGIN_CB_NO_REGS, place);
        } else {
            qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_tb_get_insn(tb, at / 4), on_watched,
                                                   QEMU_PLUGIN_CB_NO_REGS, place);
        }
    }
}

/* Loads and stores: bits 28..25 of an A64 word are x1x0. */
static bool may_access_memory(uint32_t word) { return ((word >> 25) & 5) == 4; }

static void instrument_accesses(struct qemu_plugin_tb *tb, const struct block *block) {
    for (uint32_t i = 0; i < block->length; i++) {
        if (may_access_memory(block->words[i])) {
            qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, (void *)(uintptr_t)i);
        }
    }
}

static void instrument_block(struct qemu_plugin_tb *tb, struct block *block) {
    instrument_watches(tb, block);
    if (counting.by_callback || is_tracing()) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block);
    }
    if (!counting.by_callback) {
        count_inline(tb, block);
    }
    if (is_tracing()) {
        instrument_accesses(tb, block);
    }
}

void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    const size_t length = qemu_plugin_tb_n_insns(tb);
    count_inline_in_total(tb, length);
    if (!counts_blocks()) {
        return;
    }
    if (length > MAX_BLOCK_LENGTH) {
        die("a block longer than QEMU makes them");
    }
    uint32_t words[MAX_BLOCK_LENGTH];
    copy_words(tb, words, length);
    lock_region();
    refresh_modules();
    instrument_block(tb, find_block(qemu_plugin_tb_vaddr(tb), words, (uint32_t)length));
    unlock_region();
}
