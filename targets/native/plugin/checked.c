#include "checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void die(const char *message) {
    fprintf(stderr, "edgekit counting plugin: %s\n", message);
    _exit(EXIT_FAILURE);
}

void *grow(void *old, size_t count, size_t item) {
    void *grown = realloc(old, count * item);
    if (!grown) {
        die("out of memory");
    }
    return grown;
}
