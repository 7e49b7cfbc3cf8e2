#define _GNU_SOURCE
#include "modules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"

#define MAX_WATCHES 64u

static struct module *modules;
static uint32_t used_modules, room_modules;
static bool is_stale = true;
static struct watch watches[MAX_WATCHES];
static uint32_t used_watches;

/* ---- files --------------------------------------------------------------------------------------------------- */

static void keep_module(const char *path, uint64_t start, uint64_t end, uint64_t file_offset) {
    for (uint32_t i = used_modules; i-- > 0;) {
        struct module *module = &modules[i];
        if (strcmp(module->path, path) == 0 && (file_offset != 0 || module->base == start) && start >= module->base) {
            module->end = end > module->end ? end : module->end;
            return;
        }
    }
    if (used_modules == room_modules) {
        room_modules = room_modules ? room_modules * 2 : 64;
        modules = grow(modules, room_modules, sizeof *modules);
    }
    char *copy = strdup(path);
    if (!copy) {
        die("out of memory");
    }
    modules[used_modules++] = (struct module){copy, start, end, false};
}

static void keep_modules_of(FILE *maps) {
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
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void find_watches(void) {
    for (uint32_t w = 0; w < used_watches; w++) {
        for (uint32_t m = 0; m < used_modules && !watches[w].address; m++) {
            if (strcmp(file_name(modules[m].path), watches[w].library) == 0) {
                watches[w].address = modules[m].base + watches[w].offset;
            }
        }
    }
}

void read_modules(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) {
        return;
    }
    keep_modules_of(maps);
    fclose(maps);
    is_stale = false;
    find_watches();
}

void note_mapping(void) { is_stale = true; }

void refresh_modules(void) {
    if (is_stale) {
        read_modules();
    }
}

uint32_t num_modules(void) { return used_modules; }

struct module *module_at(uint32_t index) { return &modules[index]; }

/* ---- watched functions --------------------------------------------------------------------------------------- */

bool add_watch(char *text) {
    char *plus = strrchr(text, '+'), *end;
    if (!plus || used_watches == MAX_WATCHES) {
        return false;
    }
    errno = 0;
    watches[used_watches].offset = strtoull(plus + 1, &end, 16);
    if (errno != 0 || end == plus + 1 || *end != '\0') {
        return false;
    }
    *plus = '\0';
    watches[used_watches++].library = text;
    return true;
}

uint32_t num_watches(void) { return used_watches; }

const struct watch *watch_at(uint32_t index) { return &watches[index]; }
