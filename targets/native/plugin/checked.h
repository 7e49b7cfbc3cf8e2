/* What ends the guest, with a message, where it fails. */
#ifndef EDGEKIT_CHECKED_H
#define EDGEKIT_CHECKED_H

#include <stddef.h>

__attribute__((noreturn)) void die(const char *message);

/* realloc, for `count` items of this many bytes; old may be NULL. */
void *grow(void *old, size_t count, size_t item);

#endif
