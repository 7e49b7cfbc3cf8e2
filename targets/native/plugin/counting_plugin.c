/*
 * Counts what an aarch64 guest executes under qemu-aarch64, exactly, block by block. See README.md beside this file
 * for the arguments, for the bytes of the three outputs (count file, live file, trace stream), and for what each of
 * the other files holds. This one is where QEMU comes in: the arguments, and the callbacks of the process.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "environment.h"
#include "instrument.h"
#include "modules.h"
#include "region.h"
#include "trace.h"
#include "watchdog.h"

#define MMAP_SYSCALL 222

PLUGIN_EXPORT int qemu_plugin_version = 1;
PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

struct arguments {
    const char *out_path;
    uint64_t limit_instructions;
    int64_t segment_syscall;
    bool count_whole;
    bool is_repeatable;
};
static struct arguments arguments = {.segment_syscall = -1};

/* QEMU compares this number before it calls anything of ours; 2 is the oldest that QEMU 9 and later accept. */
__attribute__((constructor)) static void choose_interface(void) { qemu_plugin_version = has_scoreboards() ? 2 : 1; }

/* ---- callbacks of the process -------------------------------------------------------------------------------- */

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (is_forked_child()) {
        return;
    }
    note_question(vcpu, number, a1, a2);
    if (number == MARKER_SYSCALL) {
        on_marker(vcpu, a1, a2);
    } else if (number == MMAP_SYSCALL) {
        note_mapping();
    } else if (number == arguments.segment_syscall && vcpu == counting.vcpu) {
        next_segment(BOUNDARY_SYSCALL, (uint64_t)number);
    }
}

static void on_syscall_return(qemu_plugin_id_t id, unsigned vcpu, int64_t number, int64_t result) {
    (void)id;
    if (!is_forked_child()) {
        replace_answer(vcpu, number, result);
    }
}

static void on_vcpu_init(qemu_plugin_id_t id, unsigned vcpu) {
    (void)id;
    thread_begins(vcpu);
}

static void on_vcpu_exit(qemu_plugin_id_t id, unsigned vcpu) {
    (void)id, (void)vcpu;
    thread_ends();
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *unused) {
    (void)id, (void)unused;
    guest_ends();
}

static void register_callbacks(qemu_plugin_id_t id) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    if (arguments.is_repeatable) {
        qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    }
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init);
    qemu_plugin_register_vcpu_exit_cb(id, on_vcpu_exit);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
}

/* ---- arguments ----------------------------------------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_number_argument(const char *name, const char *value) {
    uint64_t number;
    if (!parse_number(value, &number)) {
        return false;
    }
    if (strcmp(name, "limit") == 0) {
        arguments.limit_instructions = number;
    } else if (strcmp(name, "whole") == 0) {
        arguments.count_whole = number != 0;
    } else if (strcmp(name, "repeatable") == 0) {
        arguments.is_repeatable = number != 0;
    } else if (strcmp(name, "segment_syscall") == 0) {
        arguments.segment_syscall = (int64_t)number;
    } else {
        return false;
    }
    return true;
}

static bool parse_argument(char *argument) {
    char *value = strchr(argument, '=');
    if (!value) {
        return false;
    }
    *value++ = '\0';
    if (strcmp(argument, "out") == 0) {
        arguments.out_path = value;
        return true;
    }
    if (strcmp(argument, "watch") == 0) {
        return add_watch(value);
    }
    if (strcmp(argument, "trace") == 0) {
        return open_trace(value);
    }
    return parse_number_argument(argument, value);
}

/* ---- installation -------------------------------------------------------------------------------------------- */

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

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    if (check_host(info) != 0) {
        return 1;
    }
    for (int i = 0; i < argc; i++) {
        if (!parse_argument(argv[i])) {
            return refuse("wrong argument: ", argv[i]);
        }
    }
    if (!arguments.out_path) {
        return refuse("the argument out=FILE is missing", "");
    }
    prepare_instrument(info->version.cur);
    prepare_counters();
    prepare_region(id, arguments.out_path, register_callbacks);
    if (arguments.count_whole) {
        begin_whole();
    }
    start_watchdog(arguments.limit_instructions);
    register_callbacks(id);
    return 0;
}
