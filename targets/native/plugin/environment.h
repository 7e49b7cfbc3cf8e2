/*
 * Answers of the system that are the same in every run: times and random numbers.
 *
 * The system call has been made when its answer is overwritten, so that errors stay as they are.
 */
#ifndef EDGEKIT_ENVIRONMENT_H
#define EDGEKIT_ENVIRONMENT_H

#include <stdint.h>

/* A thread makes a system call, and it returns. */
void note_question(unsigned vcpu, int64_t syscall, uint64_t a1, uint64_t a2);
void replace_answer(unsigned vcpu, int64_t syscall, int64_t result);

#endif
