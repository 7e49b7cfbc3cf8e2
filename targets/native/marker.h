/* Marks the parts of a program for the counting plugin: one system call that no kernel has.
 *
 * Under emulation the plugin sees the call and its arguments. On a real kernel the call returns ENOSYS at once, so that
 * the same program runs there. Build with -DEDGEKIT_MARKERS=0 where a filter kills a process for an unknown call (the
 * seccomp filter of Android's app processes; programs started from its shell are not under it).
 */
#ifndef EDGEKIT_MARKER_H
#define EDGEKIT_MARKER_H

#ifndef EDGEKIT_MARKERS
#define EDGEKIT_MARKERS 1
#endif

#define EDGEKIT_MARKER_SYSCALL 5000

enum edgekit_marker {
    EDGEKIT_LOAD_BEGIN = 1,
    EDGEKIT_LOAD_END = 2,
    EDGEKIT_STEADY_BEGIN = 3,
    EDGEKIT_STEADY_END = 4,
    EDGEKIT_SEGMENT = 5, /* a new segment starts; `a` is a number of the program's own */
};

#if EDGEKIT_MARKERS

#include <errno.h>
#include <unistd.h>

static inline void edgekit_mark(enum edgekit_marker kind, long a, long b) {
    const int kept = errno; /* the call fails on purpose: the program must not see that */
    (void)syscall(EDGEKIT_MARKER_SYSCALL, (long)kind, a, b);
    errno = kept;
}

#else

static inline void edgekit_mark(enum edgekit_marker kind, long a, long b) {
    (void)kind;
    (void)a;
    (void)b;
}

#endif

#endif
