#define _GNU_SOURCE
#include "count_file.h"

#include <stdio.h>
#include <string.h>

#include "blocks.h"
#include "checked.h"
#include "modules.h"
#include "segments.h"

static void put(FILE *file, const void *bytes, size_t size) {
    if (size && fwrite(bytes, size, 1, file) != 1) {
        die("the count file cannot be written: is the disk full?");
    }
}

static bool holds_a_block(const struct module *module) {
    for (uint32_t i = 0; i < num_blocks(); i++) {
        const uint64_t address = block_at(i)->address;
        if (address >= module->base && address < module->end) {
            return true;
        }
    }
    return false;
}

static uint32_t mark_used_modules(void) {
    uint32_t used = 0;
    for (uint32_t m = 0; m < num_modules(); m++) {
        module_at(m)->used = holds_a_block(module_at(m));
        used += module_at(m)->used;
    }
    return used;
}

static void put_modules(FILE *file) {
    for (uint32_t m = 0; m < num_modules(); m++) {
        const struct module *module = module_at(m);
        if (module->used) {
            const uint64_t place[] = {module->base, module->end, strlen(module->path)};
            put(file, place, sizeof place);
            put(file, module->path, place[2]);
        }
    }
}

static void put_blocks(FILE *file) {
    for (uint32_t i = 0; i < num_blocks(); i++) {
        put(file, &block_at(i)->address, sizeof(uint64_t));
    }
    for (uint32_t i = 0; i < num_blocks(); i++) {
        put(file, &block_at(i)->length, sizeof(uint32_t));
    }
    for (uint32_t i = 0; i < num_blocks(); i++) {
        put(file, block_at(i)->words, block_at(i)->length * sizeof(uint32_t));
    }
}

static void put_all(FILE *file, struct count_summary summary) {
    const struct segment_log *log = segment_log();
    const uint32_t head[] = {(uint32_t)summary.status, summary.num_threads, mark_used_modules(),
                             num_blocks(),             log->num_segments,   summary.is_exact};
    const uint64_t totals[] = {log->num_records, total_instructions(), summary.load_instructions};
    put(file, "EKCOUNT1", 8);
    put(file, head, sizeof head);
    put(file, totals, sizeof totals);
    put_modules(file);
    put_blocks(file);
    put(file, log->segments, log->num_segments * sizeof *log->segments);
    put(file, log->records, log->num_records * sizeof *log->records);
}

void write_count_file(const char *path, struct count_summary summary) {
    read_modules();
    char unfinished[4096];
    if (snprintf(unfinished, sizeof unfinished, "%s.part", path) >= (int)sizeof unfinished) {
        die("the path of the count file is too long");
    }
    FILE *file = fopen(unfinished, "wbe");
    if (!file) {
        die("the count file cannot be opened");
    }
    put_all(file, summary);
    if (fclose(file) != 0 || rename(unfinished, path) != 0) {
        die("the count file cannot be written: is the disk full?");
    }
}
