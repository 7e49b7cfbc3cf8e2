#include "pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HORIZON_SLACK = 256 };

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

void pipeline_init(Pipeline *pipeline, const CoreConfig *config, bool perfect_memory) {
    memset(pipeline, 0, sizeof *pipeline);
    pipeline->config = config;
    pipeline->perfect_memory = perfect_memory;
    if (!perfect_memory)
        memory_init(&pipeline->memory, config);
    if (config->reorder_buffer > MAX_RETIRE_RING) {
        fprintf(stderr, "coresim: core %s: a reorder buffer above %d entries\n", config->name, MAX_RETIRE_RING);
        exit(2);
    }
}

uint64_t pipeline_now(const Pipeline *pipeline) {
    return pipeline->config->in_order ? pipeline->issue_cycle : pipeline->last_retire;
}

/* ---- ports of the out-of-order core ---- */

static uint64_t *ring_word(Pipeline *pipeline, int port, uint64_t cycle) {
    return &pipeline->busy[port][cycle / 64 % RING_WORDS];
}

/* Forget what lies before `cycle`, so that the ring's words can be used again. */
static void move_horizon(Pipeline *pipeline, uint64_t cycle) {
    uint64_t from = pipeline->horizon / 64, to = cycle / 64;
    if (to <= from)
        return;
    if (to - from >= RING_WORDS)
        memset(pipeline->busy, 0, sizeof pipeline->busy);
    else
        for (uint64_t word = from; word < to; word++)
            for (int port = 0; port < pipeline->config->num_ports; port++)
                pipeline->busy[port][word % RING_WORDS] = 0;
    pipeline->horizon = to * 64;
}

/* The first cycle from `cycle` on in which one of `ports` is free, and that port. */
static uint64_t find_slot(Pipeline *pipeline, uint32_t ports, uint64_t cycle, int *port) {
    uint64_t end = pipeline->horizon + RING_CYCLES - 128;
    *port = __builtin_ctz(ports);
    while (cycle < end) {
        uint64_t taken = ~0ull;
        for (uint32_t rest = ports; rest; rest &= rest - 1)
            taken &= *ring_word(pipeline, __builtin_ctz(rest), cycle);
        uint64_t free_bits = ~taken >> (cycle & 63);
        if (free_bits) {
            cycle += (uint64_t)__builtin_ctzll(free_bits);
            break;
        }
        cycle = (cycle / 64 + 1) * 64;
    }
    for (uint32_t rest = ports; rest; rest &= rest - 1) {
        int candidate = __builtin_ctz(rest);
        if (!(*ring_word(pipeline, candidate, cycle) >> (cycle & 63) & 1)) {
            *port = candidate;
            break;
        }
    }
    return cycle;
}

static void reserve(Pipeline *pipeline, int port, uint64_t cycle, int occupancy) {
    if (cycle + (uint64_t)occupancy >= pipeline->horizon + RING_CYCLES)
        return; /* further ahead than the ring reaches: behind a chain of misses, where ports do not matter */
    for (int i = 0; i < occupancy; i++)
        *ring_word(pipeline, port, cycle + (uint64_t)i) |= 1ull << ((cycle + (uint64_t)i) & 63);
}

/* ---- issue queues ---- */

static void drain_queue(Pipeline *pipeline, int queue, uint64_t until) {
    uint64_t cycle = pipeline->drained[queue];
    if (until >= cycle + RING_CYCLES) { /* everything that could be waiting has left by then */
        memset(pipeline->leaving[queue], 0, sizeof pipeline->leaving[queue]);
        pipeline->waiting[queue] = 0;
    }
    for (; cycle < until && pipeline->waiting[queue] > 0; cycle++) {
        uint16_t *leaving = &pipeline->leaving[queue][cycle % RING_CYCLES];
        pipeline->waiting[queue] -= *leaving;
        *leaving = 0;
    }
    pipeline->drained[queue] = later(pipeline->drained[queue], until);
}

/* Dispatch waits until the queue has room; an entry is freed when its operation issues. */
static void wait_for_queue(Pipeline *pipeline, int queue) {
    int entries = pipeline->config->queue_entries[queue];
    if (entries == 0)
        return;
    drain_queue(pipeline, queue, pipeline->dispatch_cycle);
    while (pipeline->waiting[queue] >= entries) {
        pipeline->dispatch_cycle++;
        pipeline->dispatched = 0;
        drain_queue(pipeline, queue, pipeline->dispatch_cycle);
    }
}

static void enter_queue(Pipeline *pipeline, int queue, uint64_t issue) {
    if (pipeline->config->queue_entries[queue] == 0 || issue >= pipeline->drained[queue] + RING_CYCLES)
        return;
    pipeline->waiting[queue]++;
    pipeline->leaving[queue][issue % RING_CYCLES]++;
}

/* ---- registers ---- */

static uint64_t operands_ready(const Pipeline *pipeline, const DecodedWord *word) {
    uint64_t ready = 0;
    for (int i = 0; i < word->num_read; i++) {
        uint8_t number = word->read[i];
        ready = later(ready, i == word->accumulator ? pipeline->forward[number] : pipeline->ready[number]);
    }
    return ready;
}

typedef struct {
    uint64_t issue, done, forward;
    uint64_t step; /* from one written register to the next */
} ResultTimes;

static void write_results(Pipeline *pipeline, const DecodedWord *word, ResultTimes times) {
    for (int i = 0; i < word->num_written; i++) {
        pipeline->ready[word->written[i]] = times.done + times.step * (uint64_t)i;
        pipeline->forward[word->written[i]] = times.forward + times.step * (uint64_t)i;
    }
    if (word->writeback != NO_REGISTER)
        pipeline->ready[word->writeback] = pipeline->forward[word->writeback] = times.issue + 1;
}

/* Follow the values of base registers: an access tells its base, additions and write-back keep it known. */
static void follow_bases(Pipeline *pipeline, const DecodedWord *word, const Access *access) {
    if (access && (word->flags & BASE_KNOWN)) {
        pipeline->base_value[word->base] = access->address - (uint64_t)(int64_t)word->offset;
        pipeline->base_known[word->base] = true;
    }
    bool adds = (word->flags & ADDS_IMMEDIATE) && word->num_written == 1 && pipeline->base_known[word->base];
    uint64_t sum = adds ? pipeline->base_value[word->base] + (uint64_t)(int64_t)word->offset : 0;
    for (int i = 0; i < word->num_written; i++)
        pipeline->base_known[word->written[i]] = false;
    if (adds) {
        pipeline->base_value[word->written[0]] = sum;
        pipeline->base_known[word->written[0]] = true;
    }
    if (word->writeback != NO_REGISTER) {
        if (word->flags & STEP_KNOWN)
            pipeline->base_value[word->writeback] += (uint64_t)(int64_t)word->step;
        else
            pipeline->base_known[word->writeback] = false;
    }
}

/* ---- memory ---- */

typedef struct {
    uint64_t ready; /* when the last line is there; 0: all in L1 */
    uint64_t wait;  /* before this the access could not start */
} AccessTimes;

static AccessTimes access_memory(Pipeline *pipeline, const DecodedWord *word, const Access *accesses, uint32_t count,
                                 uint64_t issue) {
    AccessTimes times = {0, issue};
    for (uint32_t i = 0; i < count; i++) {
        if (accesses[i].store) {
            uint64_t drained =
                (uint64_t)memory_store(&pipeline->memory, accesses[i].address, word->store_bytes, (double)issue);
            (void)drained; /* the store buffer entry is what later stores wait for */
            continue;
        }
        double wait;
        double ready = memory_load(&pipeline->memory, accesses[i].address, (double)issue, &wait);
        if (ready > (double)issue)
            times.ready = later(times.ready, (uint64_t)ready);
        times.wait = later(times.wait, (uint64_t)wait);
    }
    if ((word->flags & IS_PREFETCH) && (word->flags & BASE_KNOWN) && pipeline->base_known[word->base]) {
        uint64_t address = pipeline->base_value[word->base] + (uint64_t)(int64_t)word->offset;
        times.wait = later(times.wait, (uint64_t)memory_prefetch(&pipeline->memory, address, (double)issue));
    }
    return times;
}

/* ---- out of order ---- */

/* Whether one more operation can be dispatched to a port in this cycle. */
static bool port_takes(const Pipeline *pipeline, int port) {
    return pipeline->port_dispatch_cycle[port] != pipeline->dispatch_cycle ||
           pipeline->port_dispatched[port] < pipeline->config->dispatch_limit[port];
}

static int port_that_takes(const Pipeline *pipeline, uint32_t ports) {
    for (uint32_t rest = ports; rest; rest &= rest - 1)
        if (port_takes(pipeline, __builtin_ctz(rest)))
            return __builtin_ctz(rest);
    return -1;
}

/* Dispatch waits until each operation has a port that takes it; younger instructions do not pass. */
static void wait_for_ports(Pipeline *pipeline, const ClassTiming *timing) {
    int width = pipeline->config->dispatch_width;
    for (int i = 0; i < timing->num_operations; i++) {
        if (!timing->operations[i].limited)
            continue;
        int port;
        while ((port = port_that_takes(pipeline, timing->operations[i].ports)) < 0) {
            pipeline->dispatch_cycle++;
            pipeline->dispatched = timing->slots < width ? timing->slots : width;
        }
        if (pipeline->port_dispatch_cycle[port] != pipeline->dispatch_cycle)
            pipeline->port_dispatched[port] = 0;
        pipeline->port_dispatch_cycle[port] = pipeline->dispatch_cycle;
        pipeline->port_dispatched[port]++;
    }
}

static void dispatch(Pipeline *pipeline, const DecodedWord *word, const ClassTiming *timing) {
    const CoreConfig *config = pipeline->config;
    uint64_t oldest = pipeline->retire_ring[pipeline->retire_position];
    if (word->store_bytes && !pipeline->perfect_memory)
        oldest = later(oldest, (uint64_t)memory_store_slot(&pipeline->memory));
    if (oldest > pipeline->dispatch_cycle) {
        pipeline->dispatch_cycle = oldest;
        pipeline->dispatched = 0;
    }
    for (int i = 0; i < timing->num_operations; i++)
        wait_for_queue(pipeline, timing->operations[i].queue);
    pipeline->dispatched += timing->slots;
    while (pipeline->dispatched > config->dispatch_width) {
        pipeline->dispatch_cycle++;
        pipeline->dispatched -= config->dispatch_width;
    }
    wait_for_ports(pipeline, timing);
}

static uint64_t issue_operations(Pipeline *pipeline, const ClassTiming *timing, uint64_t earliest) {
    uint64_t issue = earliest;
    for (int i = 0; i < timing->num_operations; i++) {
        const Operation *operation = &timing->operations[i];
        int port;
        uint64_t cycle = find_slot(pipeline, operation->ports, earliest, &port);
        reserve(pipeline, port, cycle, operation->occupancy);
        enter_queue(pipeline, operation->queue, cycle);
        issue = later(issue, cycle);
    }
    return issue;
}

static void retire(Pipeline *pipeline, uint64_t done) {
    if (done > pipeline->last_retire) {
        pipeline->last_retire = done;
        pipeline->retired = 0;
    }
    if (pipeline->retired >= pipeline->config->retire_width) {
        pipeline->last_retire++;
        pipeline->retired = 0;
    }
    pipeline->retired++;
    pipeline->retire_ring[pipeline->retire_position] = pipeline->last_retire;
    if (++pipeline->retire_position == (uint32_t)pipeline->config->reorder_buffer)
        pipeline->retire_position = 0;
}

static void run_out_of_order(Pipeline *pipeline, const DecodedWord *word, const Access *accesses, uint32_t count) {
    const ClassTiming *timing = &pipeline->config->classes[word->class_index];
    dispatch(pipeline, word, timing);
    uint64_t earliest = later(pipeline->dispatch_cycle + 1, operands_ready(pipeline, word));
    uint64_t issue = issue_operations(pipeline, timing, earliest);
    uint64_t done = issue + (uint64_t)timing->latency, forward = issue + (uint64_t)timing->forward;
    if (!pipeline->perfect_memory) {
        AccessTimes times = access_memory(pipeline, word, accesses, count, issue);
        if (times.ready)
            done = forward = later(done, times.ready + (uint64_t)timing->latency);
        done = later(done, times.wait); /* a prefetch instruction retires when its line fill begins */
        follow_bases(pipeline, word, count ? accesses : NULL);
    }
    write_results(pipeline, word, (ResultTimes){issue, done, forward, (uint64_t)timing->step});
    retire(pipeline, done);
    if (pipeline->dispatch_cycle > pipeline->horizon + HORIZON_SLACK)
        move_horizon(pipeline, pipeline->dispatch_cycle - 64);
    pipeline->last_branch_done = done;
}

/* ---- in order ---- */

/* The kept cycles of a port from `cycle` on; cycles are asked for in order, so earlier ones are forgotten. */
static uint64_t *kept_cycles(Pipeline *pipeline, int port, uint64_t cycle) {
    uint64_t passed = cycle - pipeline->kept_from[port];
    pipeline->kept[port] = passed < 64 ? pipeline->kept[port] >> passed : 0;
    pipeline->kept_from[port] = cycle;
    return &pipeline->kept[port];
}

static bool port_free(Pipeline *pipeline, int port, uint64_t cycle) {
    return pipeline->port_free[port] <= cycle && !(*kept_cycles(pipeline, port, cycle) & 1);
}

/* Whether all operations can start in `cycle` on ports of their own; `chosen` gets the ports. */
static bool ports_free(Pipeline *pipeline, const ClassTiming *timing, uint64_t cycle, int *chosen) {
    uint32_t taken = 0;
    for (int i = 0; i < timing->num_operations; i++) {
        const Operation *operation = &timing->operations[i];
        if (operation->delay) { /* it waits for nobody; it may keep the very port that the instruction takes now */
            chosen[i] = __builtin_ctz(operation->ports);
            continue;
        }
        uint32_t rest = operation->ports & ~taken;
        while (rest && !port_free(pipeline, __builtin_ctz(rest), cycle))
            rest &= rest - 1;
        if (!rest)
            return false;
        chosen[i] = __builtin_ctz(rest);
        taken |= 1u << chosen[i];
    }
    return true;
}

static void take_ports(Pipeline *pipeline, const ClassTiming *timing, uint64_t cycle, const int *chosen) {
    for (int i = 0; i < timing->num_operations; i++) {
        const Operation *operation = &timing->operations[i];
        if (operation->delay)
            *kept_cycles(pipeline, chosen[i], cycle) |= 1ull << operation->delay;
        else
            pipeline->port_free[chosen[i]] = cycle + (uint64_t)operation->occupancy;
    }
}

static uint64_t issue_in_order(Pipeline *pipeline, const ClassTiming *timing, uint64_t earliest) {
    int chosen[MAX_OPERATIONS];
    uint64_t cycle = later(earliest, pipeline->issue_cycle);
    if (cycle == pipeline->issue_cycle && pipeline->issued > 0 &&
        (timing->first || pipeline->issued + timing->slots > pipeline->config->dispatch_width))
        cycle++;
    while (!ports_free(pipeline, timing, cycle, chosen))
        cycle++;
    take_ports(pipeline, timing, cycle, chosen);
    if (cycle > pipeline->issue_cycle) {
        pipeline->issue_cycle = cycle;
        pipeline->issued = 0;
    }
    pipeline->issued += timing->slots;
    while (pipeline->issued > pipeline->config->dispatch_width) { /* more slots than a cycle has: it holds up the next too */
        pipeline->issue_cycle++;
        pipeline->issued -= pipeline->config->dispatch_width;
    }
    return cycle;
}

/* Nothing issues before `cycle`. */
static void stall_until(Pipeline *pipeline, uint64_t cycle) {
    if (cycle > pipeline->issue_cycle) {
        pipeline->issue_cycle = cycle;
        pipeline->issued = 0;
    }
}

static void run_in_order(Pipeline *pipeline, const DecodedWord *word, const Access *accesses, uint32_t count) {
    const ClassTiming *timing = &pipeline->config->classes[word->class_index];
    uint64_t earliest = operands_ready(pipeline, word);
    if (word->store_bytes && !pipeline->perfect_memory)
        earliest = later(earliest, (uint64_t)memory_store_slot(&pipeline->memory));
    uint64_t issue = issue_in_order(pipeline, timing, earliest);
    uint64_t done = issue + (uint64_t)timing->latency, forward = issue + (uint64_t)timing->forward;
    if (!pipeline->perfect_memory) {
        AccessTimes times = access_memory(pipeline, word, accesses, count, issue);
        if (times.ready)
            done = forward = later(done, times.ready + (uint64_t)timing->latency);
        stall_until(pipeline, times.wait); /* a load or prefetch without a fill buffer blocks the pipeline behind it */
        follow_bases(pipeline, word, count ? accesses : NULL);
    }
    write_results(pipeline, word, (ResultTimes){issue, done, forward, (uint64_t)timing->step});
    pipeline->last_branch_done = issue + 1;
}

/* ---- blocks ---- */

void pipeline_run(Pipeline *pipeline, const Block *block, const Access *accesses, uint32_t num_accesses) {
    bool in_order = pipeline->config->in_order;
    uint32_t position = 0;
    for (uint32_t i = 0; i < block->num_words; i++) {
        uint32_t first = position;
        while (position < num_accesses && accesses[position].instruction == i)
            position++;
        if (in_order)
            run_in_order(pipeline, &block->words[i], &accesses[first], position - first);
        else
            run_out_of_order(pipeline, &block->words[i], &accesses[first], position - first);
    }
}

void pipeline_branch(Pipeline *pipeline, BranchOutcome outcome) {
    const CoreConfig *config = pipeline->config;
    if (config->in_order) {
        int cost = outcome.mispredicted ? config->mispredict_penalty : outcome.taken ? config->taken_branch_bubble : 0;
        stall_until(pipeline, pipeline->issue_cycle + (uint64_t)cost);
        return;
    }
    uint64_t redirect = pipeline->dispatch_cycle;
    if (outcome.mispredicted)
        redirect = later(redirect, pipeline->last_branch_done + (uint64_t)config->mispredict_penalty);
    else if (outcome.taken)
        redirect += (uint64_t)config->taken_branch_bubble;
    if (redirect > pipeline->dispatch_cycle) {
        pipeline->dispatch_cycle = redirect;
        pipeline->dispatched = 0;
    }
}
