#include "core_config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KIND_INT, KIND_BOOL, KIND_DOUBLE, KIND_INT64 } FieldKind;

typedef struct {
    const char *key;
    FieldKind kind;
    size_t offset;
} Field;

#define INT_FIELD(name) {#name, KIND_INT, offsetof(CoreConfig, name)}
#define BOOL_FIELD(name) {#name, KIND_BOOL, offsetof(CoreConfig, name)}
#define DOUBLE_FIELD(name) {#name, KIND_DOUBLE, offsetof(CoreConfig, name)}
#define LEVEL_FIELDS(number, index)                                                              \
    {"l" number "_bytes", KIND_INT64, offsetof(CoreConfig, levels[index].bytes)},                \
        {"l" number "_ways", KIND_INT, offsetof(CoreConfig, levels[index].ways)},                \
        {"l" number "_latency", KIND_DOUBLE, offsetof(CoreConfig, levels[index].latency)},       \
        {"l" number "_bytes_per_cycle", KIND_DOUBLE, offsetof(CoreConfig, levels[index].bytes_per_cycle)}, \
        {"l" number "_outstanding", KIND_INT, offsetof(CoreConfig, levels[index].outstanding)}

static const Field FIELDS[] = {
    BOOL_FIELD(in_order),
    INT_FIELD(dispatch_width),
    INT_FIELD(retire_width),
    INT_FIELD(reorder_buffer),
    INT_FIELD(store_buffer),
    INT_FIELD(mispredict_penalty),
    INT_FIELD(taken_branch_bubble),
    LEVEL_FIELDS("1", 0),
    LEVEL_FIELDS("2", 1),
    LEVEL_FIELDS("3", 2),
    DOUBLE_FIELD(memory_latency),
    DOUBLE_FIELD(memory_bytes_per_cycle),
    INT_FIELD(prefetch_streams),
    INT_FIELD(prefetch_trigger),
    INT_FIELD(prefetch_l1_lines),
    INT_FIELD(prefetch_l2_lines),
    INT_FIELD(prefetch_max_stride),
    BOOL_FIELD(prefetch_crosses_pages),
    INT_FIELD(first_tlb_entries),
    INT_FIELD(first_tlb_miss),
    INT_FIELD(second_tlb_entries),
    INT_FIELD(table_walk),
};

enum { NUM_FIELDS = sizeof FIELDS / sizeof FIELDS[0] };

static void refuse(const char *path, const char *reason, const char *line) {
    fprintf(stderr, "coresim: %s: %s: %s\n", path, reason, line);
    exit(2);
}

/* Returns the field's index, or -1 where no field has that name. */
static int store_field(CoreConfig *config, const char *key, double value) {
    for (int i = 0; i < NUM_FIELDS; i++) {
        if (strcmp(FIELDS[i].key, key) != 0)
            continue;
        void *place = (char *)config + FIELDS[i].offset;
        switch (FIELDS[i].kind) {
        case KIND_INT:
            *(int *)place = (int)value;
            break;
        case KIND_BOOL:
            *(bool *)place = value != 0;
            break;
        case KIND_DOUBLE:
            *(double *)place = value;
            break;
        case KIND_INT64:
            *(int64_t *)place = (int64_t)value;
            break;
        }
        return i;
    }
    return -1;
}

/* "class INDEX LATENCY STEP FORWARD SLOTS FIRST COUNT PORTS:OCCUPANCY:DELAY ..." */
static void parse_class(CoreConfig *config, const char *path, const char *line) {
    int index, first, count, used;
    ClassTiming timing = {.present = true};
    if (sscanf(line, "class %d %d %d %d %d %d %d%n", &index, &timing.latency, &timing.step, &timing.forward, &timing.slots,
               &first, &count, &used) != 7)
        refuse(path, "not a class", line);
    timing.first = first != 0;
    if (index < 0 || index >= MAX_CLASSES || count < 0 || count > MAX_OPERATIONS)
        refuse(path, "class or number of operations out of range", line);
    const char *rest = line + used;
    for (int i = 0; i < count; i++) {
        Operation *operation = &timing.operations[i];
        if (sscanf(rest, " %u:%d:%d%n", &operation->ports, &operation->occupancy, &operation->delay, &used) != 3)
            refuse(path, "not a list of operations", line);
        if (operation->ports == 0 || operation->ports >> MAX_PORTS || operation->occupancy < 1 || operation->occupancy > 64)
            refuse(path, "an operation needs one port or more, and takes 1 to 64 cycles", line);
        if (operation->delay < 0 || operation->delay > MAX_DELAY)
            refuse(path, "an operation takes its port at issue or up to 63 cycles later", line);
        rest += used;
    }
    timing.num_operations = count;
    config->classes[index] = timing;
}

static void parse_line(CoreConfig *config, bool *seen, const char *path, const char *line) {
    char key[MAX_NAME];
    double value;
    int index, number;
    if (sscanf(line, "set %63s %lf", key, &value) == 2) {
        int field = store_field(config, key, value);
        if (field < 0)
            refuse(path, "unknown key", line);
        seen[field] = true;
    } else if (sscanf(line, "port %d %d", &index, &number) == 2) {
        if (index < 0 || index >= MAX_PORTS || number < 0 || number >= MAX_QUEUES)
            refuse(path, "port or queue out of range", line);
        config->queue_of_port[index] = number;
        if (index >= config->num_ports)
            config->num_ports = index + 1;
    } else if (sscanf(line, "dispatch %d %d", &index, &number) == 2) {
        if (index < 0 || index >= MAX_PORTS || number < 0)
            refuse(path, "port or limit out of range", line);
        config->dispatch_limit[index] = number;
    } else if (sscanf(line, "queue %d %d", &index, &number) == 2) {
        if (index < 0 || index >= MAX_QUEUES || number < 0)
            refuse(path, "queue out of range", line);
        config->queue_entries[index] = number;
    } else if (strncmp(line, "class ", 6) == 0) {
        parse_class(config, path, line);
    } else if (sscanf(line, "core %63s", config->name) != 1) {
        refuse(path, "not understood", line);
    }
}

static void complete_operations(CoreConfig *config) {
    for (int i = 0; i < MAX_CLASSES; i++)
        for (int k = 0; k < config->classes[i].num_operations; k++) {
            Operation *operation = &config->classes[i].operations[k];
            operation->queue = config->queue_of_port[__builtin_ctz(operation->ports)];
            operation->limited = true;
            for (uint32_t rest = operation->ports; rest; rest &= rest - 1)
                operation->limited = operation->limited && config->dispatch_limit[__builtin_ctz(rest)] > 0;
        }
}

static void check(const CoreConfig *config, const char *path) {
    if (config->dispatch_width < 1 || config->retire_width < 1 || config->reorder_buffer < 1)
        refuse(path, "must be 1 or more", "dispatch_width, retire_width, reorder_buffer");
    if (config->levels[0].bytes <= 0 || config->memory_bytes_per_cycle <= 0)
        refuse(path, "must be above 0", "l1_bytes, memory_bytes_per_cycle");
    for (int i = 0; i < MAX_CLASSES; i++)
        for (int k = 0; k < config->classes[i].num_operations; k++)
            if (!config->in_order && (config->classes[i].first || config->classes[i].operations[k].delay))
                refuse(path, "only cores that issue in order have them", "delayed ports, classes that issue first");
    for (int i = 0; i < MAX_LEVELS; i++) {
        const CacheConfig *level = &config->levels[i];
        if (level->bytes > 0 && (level->ways < 1 || level->bytes_per_cycle <= 0 || level->outstanding < 1))
            refuse(path, "needs ways, bytes_per_cycle and outstanding above 0", "a cache level");
    }
}

void core_config_load(CoreConfig *config, const char *path) {
    char line[1024];
    bool seen[NUM_FIELDS] = {false};
    memset(config, 0, sizeof *config);
    FILE *file = fopen(path, "r");
    if (!file)
        refuse(path, "cannot be read", "core file");
    while (fgets(line, sizeof line, file))
        if (line[0] != '\n' && line[0] != '#')
            parse_line(config, seen, path, line);
    fclose(file);
    for (int i = 0; i < NUM_FIELDS; i++)
        if (!seen[i])
            refuse(path, "key is missing", FIELDS[i].key);
    check(config, path);
    complete_operations(config);
}
