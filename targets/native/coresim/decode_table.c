#include "decode_table.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAGIC = 0x43444B45 };

static void refuse(const char *path, const char *reason) {
    fprintf(stderr, "coresim: %s: %s\n", path, reason);
    exit(2);
}

static uint64_t slot_of(const DecodeTable *table, uint32_t word) {
    uint64_t slot = (word * 0x9E3779B97F4A7C15ull) >> 32 & table->mask;
    while (table->rows[slot].word != 0 && table->rows[slot].word != word)
        slot = (slot + 1) & table->mask;
    return slot;
}

void decode_table_load(DecodeTable *table, const char *path) {
    uint32_t header[2];
    FILE *file = fopen(path, "rb");
    if (!file)
        refuse(path, "cannot be read");
    if (fread(header, sizeof header, 1, file) != 1 || header[0] != MAGIC)
        refuse(path, "is not a decode table");
    uint64_t capacity = 16;
    while (capacity < header[1] * 3ull)
        capacity *= 2;
    *table = (DecodeTable){.rows = calloc(capacity, sizeof(DecodedWord)), .mask = capacity - 1};
    if (!table->rows)
        refuse(path, "does not fit into memory");
    for (uint32_t i = 0; i < header[1]; i++) {
        DecodedWord row;
        if (fread(&row, sizeof row, 1, file) != 1)
            refuse(path, "is shorter than its header says");
        if (row.class_index > table->fallback_class)
            table->fallback_class = row.class_index;
        if (row.word != 0) /* word 0 marks a free slot; it is no instruction */
            table->rows[slot_of(table, row.word)] = row;
    }
    fclose(file);
}

DecodedWord decode_table_find(DecodeTable *table, uint32_t word) {
    DecodedWord row = table->rows[slot_of(table, word)];
    if (row.word == word && word != 0)
        return row;
    table->unknown++;
    return (DecodedWord){.word = word,
                         .class_index = table->fallback_class,
                         .accumulator = NO_REGISTER,
                         .writeback = NO_REGISTER,
                         .base = NO_REGISTER};
}
