/* coresim: cycles of A64 code on described cores.

   coresim blocks --decode TABLE --core FILE [--core FILE ...] --blocks FILE --output FILE
   coresim trace  --decode TABLE --core FILE [--core FILE ...] --input FILE|- --output FILE

   See README.md for the models and the formats. */
#include "core_config.h"
#include "decode_table.h"
#include "pipeline.h"
#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CORES = 32 };

typedef struct {
    const char *mode, *decode, *input, *output;
    const char *cores[MAX_CORES];
    int num_cores;
} Arguments;

static void usage(void) {
    fprintf(stderr, "usage: coresim blocks --decode TABLE --core FILE... --blocks FILE --output FILE\n"
                    "       coresim trace --decode TABLE --core FILE... --input FILE|- --output FILE\n");
    exit(2);
}

static Arguments parse_arguments(int count, char **values) {
    Arguments arguments = {0};
    if (count < 2)
        usage();
    arguments.mode = values[1];
    for (int i = 2; i + 1 < count; i += 2) {
        const char *key = values[i], *value = values[i + 1];
        if (strcmp(key, "--decode") == 0)
            arguments.decode = value;
        else if (strcmp(key, "--input") == 0 || strcmp(key, "--blocks") == 0)
            arguments.input = value;
        else if (strcmp(key, "--output") == 0)
            arguments.output = value;
        else if (strcmp(key, "--core") == 0 && arguments.num_cores < MAX_CORES)
            arguments.cores[arguments.num_cores++] = value;
        else
            usage();
    }
    if (count % 2 || !arguments.decode || !arguments.input || !arguments.output || arguments.num_cores == 0)
        usage();
    return arguments;
}

static void *allocate(size_t count, size_t size) {
    void *place = calloc(count, size);
    if (!place) {
        fprintf(stderr, "coresim: out of memory\n");
        exit(2);
    }
    return place;
}

/* ---- blocks: every block looped on itself with a perfect L1 ---- */

enum { WARM_INSTRUCTIONS = 600, MEASURED_INSTRUCTIONS = 1500, MIN_LOOPS = 16 };

static double steady_cycles(Pipeline *pipeline, const CoreConfig *config, const Block *block) {
    uint32_t warm = WARM_INSTRUCTIONS / block->num_words + MIN_LOOPS;
    uint32_t measured = MEASURED_INSTRUCTIONS / block->num_words + MIN_LOOPS;
    uint64_t start = 0;
    pipeline_init(pipeline, config, true);
    for (uint32_t i = 0; i < warm + measured; i++) {
        if (i == warm)
            start = pipeline_now(pipeline);
        pipeline_run(pipeline, block, NULL, 0);
        pipeline_branch(pipeline, (BranchOutcome){.taken = true});
    }
    uint64_t end = pipeline_now(pipeline);
    memory_free(&pipeline->memory);
    return (double)(end - start) / measured;
}

static void run_blocks(const Arguments *arguments, const CoreConfig *configs, DecodeTable *table) {
    FILE *input = fopen(arguments->input, "rb"), *output = fopen(arguments->output, "w");
    uint32_t num_blocks;
    if (!input || !output || fread(&num_blocks, sizeof num_blocks, 1, input) != 1) {
        fprintf(stderr, "coresim: %s or %s cannot be opened, or the first is empty\n", arguments->input, arguments->output);
        exit(2);
    }
    Pipeline *pipeline = allocate(1, sizeof *pipeline);
    for (uint32_t i = 0; i < num_blocks; i++) {
        Block block = stream_read_block_words(input, table);
        for (int core = 0; core < arguments->num_cores; core++)
            fprintf(output, "%.6f%c", steady_cycles(pipeline, &configs[core], &block),
                    core + 1 < arguments->num_cores ? ' ' : '\n');
        free(block.words);
    }
    free(pipeline);
    fclose(input);
    if (fclose(output) != 0) {
        fprintf(stderr, "coresim: %s could not be written\n", arguments->output);
        exit(3);
    }
}

/* ---- trace ---- */

static void write_trace_result(const char *path, const Trace *trace, const CoreConfig *configs, const DecodeTable *table) {
    FILE *output = fopen(path, "w");
    if (!output) {
        fprintf(stderr, "coresim: %s cannot be written\n", path);
        exit(2);
    }
    fprintf(output, "{\"unknown_words\": %llu, \"passes\": %d, \"complete\": %s, \"cores\": [",
            (unsigned long long)table->unknown, trace->passes, trace->complete ? "true" : "false");
    for (int core = 0; core < trace->num_cores; core++) {
        fprintf(output, "%s\n{\"core\": \"%s\", \"segments\": [", core ? "," : "", configs[core].name);
        for (uint32_t i = 0; i < trace->num_segments; i++) {
            const SegmentResult *segment = &trace->results[core][i];
            fprintf(output, "%s[%llu, %llu, %llu, %llu, %llu, %llu, %llu, %llu, %llu]", i ? ", " : "",
                    (unsigned long long)segment->cycles, (unsigned long long)segment->instructions,
                    (unsigned long long)segment->memory.l1_misses, (unsigned long long)segment->memory.l2_misses,
                    (unsigned long long)segment->memory.memory_reads, (unsigned long long)segment->memory.memory_writes,
                    (unsigned long long)segment->memory.tlb_misses, (unsigned long long)segment->memory.table_walks,
                    (unsigned long long)segment->mispredicted);
        }
        fprintf(output, "]}");
    }
    fprintf(output, "\n]}\n");
    if (fclose(output) != 0) {
        fprintf(stderr, "coresim: %s could not be written\n", path);
        exit(3);
    }
}

static void run_trace(const Arguments *arguments, const CoreConfig *configs, DecodeTable *table) {
    FILE *input = strcmp(arguments->input, "-") == 0 ? stdin : fopen(arguments->input, "rb");
    if (!input) {
        fprintf(stderr, "coresim: %s cannot be read\n", arguments->input);
        exit(2);
    }
    Trace *trace = allocate(1, sizeof *trace);
    trace_init(trace, configs, arguments->num_cores, table);
    trace_run(trace, input);
    write_trace_result(arguments->output, trace, configs, table);
    if (input != stdin)
        fclose(input);
}

int main(int count, char **values) {
    Arguments arguments = parse_arguments(count, values);
    CoreConfig *configs = allocate((size_t)arguments.num_cores, sizeof *configs);
    DecodeTable table;
    decode_table_load(&table, arguments.decode);
    for (int i = 0; i < arguments.num_cores; i++)
        core_config_load(&configs[i], arguments.cores[i]);
    if (strcmp(arguments.mode, "blocks") == 0)
        run_blocks(&arguments, configs, &table);
    else if (strcmp(arguments.mode, "trace") == 0)
        run_trace(&arguments, configs, &table);
    else
        usage();
    return 0;
}
