#define _GNU_SOURCE
#include "environment.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "checked.h"

#define CLOCK_SYSCALL 113 /* clock_gettime */
#define CLOCK_STEP_NS 1000
#define RANDOM_SYSCALL 278 /* getrandom */
#define RANDOM_BYTE 0x5A
#define MAX_VCPUS 4096u

static uint64_t clock_calls[MAX_VCPUS];
static uint64_t answer_address[MAX_VCPUS]; /* where a thread wants the answer of the call under way; 0: not replaced */

void note_question(unsigned vcpu, int64_t syscall, uint64_t a1, uint64_t a2) {
    if (vcpu < MAX_VCPUS) {
        answer_address[vcpu] = syscall == CLOCK_SYSCALL ? a2 : syscall == RANDOM_SYSCALL ? a1 : 0;
    }
}

/* The kernel makes the write: it refuses a wrong address, where a plain store would fault. */
static void answer(unsigned vcpu, const void *bytes, size_t size) {
    struct iovec from = {(void *)(uintptr_t)bytes, size}, to = {(void *)(uintptr_t)answer_address[vcpu], size};
    if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != (ssize_t)size) {
        die("this system does not let a program write into itself (process_vm_writev): repeatable=1 needs that");
    }
}

/*
 * Each call of a thread finds its clock one microsecond later: code that subtracts or prints times then takes the same
 * branches. A clock for all threads would move on by the calls of those that spin, which nobody can repeat.
 */
static void answer_time(unsigned vcpu) {
    const uint64_t now_ns = ++clock_calls[vcpu] * CLOCK_STEP_NS;
    const int64_t time[2] = {(int64_t)(now_ns / 1000000000), (int64_t)(now_ns % 1000000000)};
    answer(vcpu, time, sizeof time);
}

static void answer_random(unsigned vcpu, size_t size) {
    uint8_t bytes[256];
    memset(bytes, RANDOM_BYTE, sizeof bytes);
    answer(vcpu, bytes, size < sizeof bytes ? size : sizeof bytes);
}

void replace_answer(unsigned vcpu, int64_t syscall, int64_t result) {
    if (vcpu >= MAX_VCPUS || !answer_address[vcpu]) {
        return;
    }
    if (syscall == CLOCK_SYSCALL && result == 0) {
        answer_time(vcpu);
    } else if (syscall == RANDOM_SYSCALL && result > 0) {
        answer_random(vcpu, (size_t)result);
    }
}
