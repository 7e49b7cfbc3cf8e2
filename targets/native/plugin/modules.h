/*
 * The files that the guest has mapped, and the functions in them that are watched.
 *
 * The guest's addresses are the host's (QEMU's guest base is 0 for a 64-bit guest on a 64-bit host), so the guest's
 * modules are those of /proc/self/maps.
 */
#ifndef EDGEKIT_MODULES_H
#define EDGEKIT_MODULES_H

#include <stdbool.h>
#include <stdint.h>

struct module {
    char *path;
    uint64_t base, end;
    bool used; /* holds a block: the count file names it */
};

/* A function whose every call begins a segment. */
struct watch {
    const char *library; /* its file's name, without folders */
    uint64_t offset, address; /* the address is 0 until the library is loaded */
};

/* Read which files are mapped now; those of before are kept. Finds the watched functions in them. */
void read_modules(void);

/* The guest maps something: what was read is out of date. */
void note_mapping(void);

/* Read again where it is out of date. */
void refresh_modules(void);

uint32_t num_modules(void);
struct module *module_at(uint32_t index);

/* Watch LIB+0xOFFSET; the text is changed and kept. False: it is written wrongly, or there are too many. */
bool add_watch(char *text);
uint32_t num_watches(void);
const struct watch *watch_at(uint32_t index);

#endif
