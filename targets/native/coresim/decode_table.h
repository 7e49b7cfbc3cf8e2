/* What each instruction word does; the table is made by edgekit/targets/emulated/decode.py. */
#ifndef EDGEKIT_DECODE_TABLE_H
#define EDGEKIT_DECODE_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum { NO_REGISTER = 255, FLAGS_REGISTER = 32, NUM_REGISTERS = 65 };
enum {
    IS_CONDITIONAL = 1,
    IS_CALL = 2,
    IS_RETURN = 4,
    IS_INDIRECT = 8,
    IS_PREFETCH = 16,
    BASE_KNOWN = 32,     /* address = base + offset */
    STEP_KNOWN = 64,     /* write-back adds step to the base */
    ADDS_IMMEDIATE = 128 /* written[0] = base + offset */
};

typedef struct {
    uint32_t word;
    uint8_t class_index, group_index, num_read, num_written;
    uint8_t read[8];
    uint8_t written[6];
    uint8_t accumulator; /* index into read, or NO_REGISTER */
    uint8_t writeback;
    uint8_t base;
    uint8_t flags;
    uint8_t load_bytes, store_bytes;
    int32_t offset, step;
} DecodedWord;

_Static_assert(sizeof(DecodedWord) == 36, "decode.py writes rows of 36 bytes");

typedef struct {
    DecodedWord *rows;
    uint64_t mask;
    uint64_t unknown; /* look-ups that found nothing */
    uint8_t fallback_class;
} DecodeTable;

/* Reads the table, or says what is wrong on standard error and ends the program with code 2. */
void decode_table_load(DecodeTable *table, const char *path);

/* The row of a word; a word that is not in the table is of the last class ("other"), without registers. */
DecodedWord decode_table_find(DecodeTable *table, uint32_t word);

#endif
