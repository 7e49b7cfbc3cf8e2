#include "memory.h"

#include <stdio.h>
#include <stdlib.h>

/* How far the write path may lag behind before stores wait for it: the write buffers of a level, in lines. */
enum { WRITE_BUFFERS = 8 };

static void *allocate(size_t count, size_t size) {
    void *place = calloc(count ? count : 1, size);
    if (!place) {
        fprintf(stderr, "coresim: out of memory\n");
        exit(2);
    }
    return place;
}

static double later(double a, double b) { return a > b ? a : b; }

static void cache_init(Cache *cache, const CacheConfig *config) {
    uint64_t lines = (uint64_t)config->bytes / LINE_BYTES;
    cache->num_ways = config->ways;
    cache->num_sets = lines / (uint64_t)config->ways;
    if (cache->num_sets == 0)
        cache->num_sets = 1;
    cache->set_mask = (cache->num_sets & (cache->num_sets - 1)) == 0 ? cache->num_sets - 1 : 0;
    cache->ways = allocate(cache->num_sets * (size_t)config->ways, sizeof(Way));
    cache->cycles_per_line = LINE_BYTES / config->bytes_per_cycle;
    cache->latency = config->latency;
    cache->num_fills = config->outstanding;
    cache->fills = allocate((size_t)config->outstanding, sizeof(double));
}

static void tlb_init(Tlb *tlb, int entries) {
    tlb->num_ways = entries < 16 ? entries : 16; /* the small ones are fully associative; 16 ways come close for the rest */
    tlb->num_sets = tlb->num_ways ? entries / tlb->num_ways : 0;
    tlb->num_entries = tlb->num_sets * tlb->num_ways;
    tlb->pages = allocate((size_t)tlb->num_entries, sizeof(uint64_t));
    tlb->stamps = allocate((size_t)tlb->num_entries, sizeof(uint32_t));
}

void memory_init(Memory *memory, const CoreConfig *config) {
    *memory = (Memory){.config = config, .last_line = UINT64_MAX, .last_page = UINT64_MAX};
    for (int i = 0; i < MAX_LEVELS; i++)
        if (config->levels[i].bytes > 0)
            cache_init(&memory->caches[memory->num_levels++], &config->levels[i]);
    tlb_init(&memory->first_tlb, config->first_tlb_entries);
    tlb_init(&memory->second_tlb, config->second_tlb_entries);
    memory->memory_cycles_per_line = LINE_BYTES / config->memory_bytes_per_cycle;
    memory->stores = allocate((size_t)config->store_buffer, sizeof(double));
}

void memory_free(Memory *memory) {
    for (int i = 0; i < memory->num_levels; i++) {
        free(memory->caches[i].ways);
        free(memory->caches[i].fills);
    }
    free(memory->first_tlb.pages);
    free(memory->first_tlb.stamps);
    free(memory->second_tlb.pages);
    free(memory->second_tlb.stamps);
    free(memory->stores);
}

/* ---- one cache ---- */

static Way *set_of(const Cache *cache, uint64_t line) {
    uint64_t set = cache->set_mask ? line & cache->set_mask : line % cache->num_sets;
    return &cache->ways[set * (uint64_t)cache->num_ways];
}

static Way *cache_find(const Cache *cache, uint64_t line) {
    Way *set = set_of(cache, line);
    for (int i = 0; i < cache->num_ways; i++)
        if (set[i].tag == line + 1)
            return &set[i];
    return NULL;
}

static void touch(Cache *cache, Way *way) { way->stamp = ++cache->clock; }

/* Take a place for `line`; what lay there is returned in `evicted`. */
static Way *cache_replace(Cache *cache, uint64_t line, Way *evicted) {
    Way *set = set_of(cache, line), *victim = set;
    for (int i = 0; i < cache->num_ways; i++) {
        if (set[i].tag == 0) {
            victim = &set[i];
            break;
        }
        if (set[i].stamp < victim->stamp)
            victim = &set[i];
    }
    *evicted = *victim;
    *victim = (Way){.tag = line + 1, .stamp = ++cache->clock};
    return victim;
}

/* ---- lines between levels ---- */

static double fetch(Memory *memory, int level, uint64_t line, double time);

static void write_memory(Memory *memory, double time) {
    memory->counts.memory_writes++;
    memory->dram_free = later(memory->dram_free, time) + memory->memory_cycles_per_line;
}

/* A dirty line leaves the level above `level`. */
static void write_back(Memory *memory, int level, uint64_t line, double time) {
    if (level == memory->num_levels) {
        write_memory(memory, time);
        return;
    }
    Cache *cache = &memory->caches[level];
    cache->port_free = later(cache->port_free, time) + cache->cycles_per_line;
    Way *way = cache_find(cache, line);
    if (!way) {
        Way evicted;
        way = cache_replace(cache, line, &evicted);
        if (evicted.tag && evicted.dirty)
            write_back(memory, level + 1, evicted.tag - 1, time);
    }
    way->dirty = true;
}

static void evict(Memory *memory, int level, const Way *evicted, double time) {
    if (!evicted->tag || !evicted->dirty)
        return;
    /* A line that stores began and never completed has to be read before it can be written back. */
    if (evicted->partial)
        (void)fetch(memory, level + 1, evicted->tag - 1, time);
    write_back(memory, level + 1, evicted->tag - 1, time);
}

static double fetch_from_memory(Memory *memory, double time) {
    memory->counts.memory_reads++;
    double start = later(memory->dram_free, time);
    memory->dram_free = start + memory->memory_cycles_per_line;
    return start + memory->config->memory_latency;
}

/* Bring a line out of `level` (or from below it): returns when it arrives at the level above. */
static double fetch(Memory *memory, int level, uint64_t line, double time) {
    if (level == memory->num_levels)
        return fetch_from_memory(memory, time);
    Cache *cache = &memory->caches[level];
    double start = later(cache->port_free, time);
    Way *way = cache_find(cache, line);
    if (way) {
        touch(cache, way);
        cache->port_free = start + cache->cycles_per_line;
        return later(start + cache->latency, way->ready);
    }
    if (level == 1)
        memory->counts.l2_misses++;
    double issue = later(time, cache->fills[cache->next_fill]);
    double ready = fetch(memory, level + 1, line, issue);
    cache->fills[cache->next_fill] = ready;
    cache->next_fill = (cache->next_fill + 1) % cache->num_fills;
    cache->port_free = later(cache->port_free, time) + cache->cycles_per_line;
    Way evicted;
    cache_replace(cache, line, &evicted)->ready = ready;
    evict(memory, level, &evicted, time);
    return ready;
}

/* Fill a line into L1; its fill slot must be free at `time`. */
static double fill_first_level(Memory *memory, uint64_t line, double time, bool prefetched) {
    Cache *cache = &memory->caches[0];
    double ready = fetch(memory, 1, line, time);
    cache->fills[cache->next_fill] = ready;
    cache->next_fill = (cache->next_fill + 1) % cache->num_fills;
    Way evicted, *way = cache_replace(cache, line, &evicted);
    way->ready = ready;
    way->prefetched = prefetched;
    evict(memory, 0, &evicted, time);
    return ready;
}

/* ---- prefetching ---- */

static bool may_prefetch(const Memory *memory, uint64_t from, uint64_t line) {
    return memory->config->prefetch_crosses_pages || from / LINES_PER_PAGE == line / LINES_PER_PAGE;
}

/* Whether a prefetch into a level is over and done with: false where it has to wait for a fill buffer. */
static bool prefetch_into(Memory *memory, int level, uint64_t line, double time) {
    Cache *cache = &memory->caches[level];
    if (level >= memory->num_levels || cache_find(cache, line))
        return true;
    if (cache->fills[cache->next_fill] > time)
        return false;
    memory->counts.prefetches++;
    if (level == 0)
        (void)fill_first_level(memory, line, time, true);
    else
        (void)fetch(memory, level, line, time);
    return true;
}

/* Ask for a level's lines up to `reach` strides ahead; `ahead` of them were asked for before. */
static void run_ahead_in(Memory *memory, const Stream *stream, int level, uint64_t reach, uint64_t *ahead, double time) {
    for (; *ahead < reach; ++*ahead) {
        uint64_t line = stream->last + (uint64_t)(stream->stride * (int64_t)(*ahead + 1));
        if (may_prefetch(memory, stream->last, line) && !prefetch_into(memory, level, line, time))
            return; /* no fill buffer to spare: the stream goes on from here when it next advances */
    }
}

static void run_ahead(Memory *memory, Stream *stream, double time) {
    const CoreConfig *config = memory->config;
    int ramp = stream->confidence - config->prefetch_trigger + 1;
    uint64_t reach = ramp >= 6 ? 64 : 1ull << ramp; /* the distance grows while the stream lasts */
    uint64_t second = reach < (uint64_t)config->prefetch_l2_lines ? reach : (uint64_t)config->prefetch_l2_lines;
    uint64_t first = reach < (uint64_t)config->prefetch_l1_lines ? reach : (uint64_t)config->prefetch_l1_lines;
    run_ahead_in(memory, stream, 1, second, &stream->ahead_l2, time);
    run_ahead_in(memory, stream, 0, first, &stream->ahead_l1, time);
}

static void advance_stream(Memory *memory, Stream *stream, uint64_t line, double time) {
    if (!memory->config->prefetch_crosses_pages && stream->last / LINES_PER_PAGE != line / LINES_PER_PAGE)
        stream->ahead_l1 = stream->ahead_l2 = 0; /* nothing of the new page was asked for */
    stream->last = line;
    stream->stamp = ++memory->stream_clock;
    stream->confidence++;
    stream->ahead_l1 -= stream->ahead_l1 > 0;
    stream->ahead_l2 -= stream->ahead_l2 > 0;
    if (stream->confidence >= memory->config->prefetch_trigger)
        run_ahead(memory, stream, time);
}

/* The stream detector sees misses of L1 and the first use of lines that it fetched itself. */
static void train(Memory *memory, uint64_t line, double time) {
    Stream *oldest = &memory->streams[0];
    int64_t reach = memory->config->prefetch_max_stride;
    for (int i = 0; i < memory->config->prefetch_streams; i++) {
        Stream *stream = &memory->streams[i];
        int64_t delta = (int64_t)(line - stream->last);
        if (stream->confidence > 1 && delta == stream->stride) {
            advance_stream(memory, stream, line, time);
            return;
        }
        if (stream->confidence == 1 && delta != 0 && delta >= -reach && delta <= reach) {
            stream->stride = delta;
            advance_stream(memory, stream, line, time);
            return;
        }
        if (stream->stamp < oldest->stamp)
            oldest = stream;
    }
    *oldest = (Stream){.last = line, .confidence = 1, .stamp = ++memory->stream_clock};
}

/* ---- translation ---- */

static bool tlb_hit(Tlb *tlb, uint64_t page) {
    if (tlb->num_entries == 0)
        return true;
    uint64_t set = page % (uint64_t)tlb->num_sets * (uint64_t)tlb->num_ways, victim = set;
    for (uint64_t i = set; i < set + (uint64_t)tlb->num_ways; i++) {
        if (tlb->pages[i] == page + 1) {
            tlb->stamps[i] = ++tlb->clock;
            return true;
        }
        if (tlb->stamps[i] < tlb->stamps[victim])
            victim = i;
    }
    tlb->pages[victim] = page + 1;
    tlb->stamps[victim] = ++tlb->clock;
    return false;
}

/* Returns the cycles that translation adds to an access. */
static double translate(Memory *memory, uint64_t address) {
    uint64_t page = address >> PAGE_SHIFT;
    if (page == memory->last_page)
        return 0;
    memory->last_page = page;
    if (tlb_hit(&memory->first_tlb, page))
        return 0;
    memory->counts.tlb_misses++;
    if (tlb_hit(&memory->second_tlb, page))
        return memory->config->first_tlb_miss;
    memory->counts.table_walks++;
    return memory->config->first_tlb_miss + memory->config->table_walk;
}

/* ---- accesses ---- */

/* A load meets a line that stores began: the missing part has to come. */
static double complete_line(Memory *memory, Way *way, uint64_t line, double time) {
    way->ready = fetch(memory, 1, line, time);
    way->partial = false;
    return way->ready;
}

static double load_miss(Memory *memory, uint64_t line, double time, double *wait) {
    Cache *cache = &memory->caches[0];
    memory->counts.l1_misses++;
    double start = later(time, cache->fills[cache->next_fill]);
    *wait = start;
    double ready = fill_first_level(memory, line, start, false);
    train(memory, line, start);
    return ready;
}

double memory_load(Memory *memory, uint64_t address, double time, double *wait) {
    uint64_t line = address >> LINE_SHIFT;
    *wait = time;
    if (line == memory->last_line)
        return memory->last_ready;
    double start = time + translate(memory, address);
    Cache *cache = &memory->caches[0];
    Way *way = cache_find(cache, line);
    double ready;
    if (way) {
        touch(cache, way);
        ready = later(way->ready, start > time ? start : 0);
        if (way->partial)
            ready = complete_line(memory, way, line, start);
        if (way->prefetched) {
            way->prefetched = false;
            train(memory, line, start);
        }
    } else {
        ready = load_miss(memory, line, start, wait);
    }
    memory->last_line = line;
    memory->last_ready = ready;
    return ready;
}

double memory_prefetch(Memory *memory, uint64_t address, double time) {
    uint64_t line = address >> LINE_SHIFT;
    if (cache_find(&memory->caches[0], line))
        return time;
    double start = later(time, memory->caches[0].fills[memory->caches[0].next_fill]);
    (void)fill_first_level(memory, line, start, false);
    return start;
}

/* Mark the bytes that a store writes of a line that has not been read; a line written whole never needs to be. */
static void mark_written(Way *way, uint64_t address, unsigned bytes) {
    unsigned first = (unsigned)(address & (LINE_BYTES - 1));
    uint64_t mask = bytes >= LINE_BYTES ? UINT64_MAX : ((1ull << bytes) - 1);
    way->written |= mask << first;
    way->partial = way->written != UINT64_MAX;
}

/* When the write path below L1 has caught up so far that another line can be begun. */
static double write_path_free(const Memory *memory) {
    double first = memory->num_levels > 1
                       ? memory->caches[1].port_free - WRITE_BUFFERS * memory->caches[1].cycles_per_line
                       : 0;
    return later(first, memory->dram_free - WRITE_BUFFERS * memory->memory_cycles_per_line);
}

double memory_store_slot(const Memory *memory) {
    return memory->config->store_buffer ? memory->stores[memory->next_store] : 0;
}

double memory_store(Memory *memory, uint64_t address, unsigned bytes, double time) {
    uint64_t line = address >> LINE_SHIFT;
    double drain = later(time + translate(memory, address), memory->store_free);
    Cache *cache = &memory->caches[0];
    Way *way = cache_find(cache, line);
    if (way) {
        touch(cache, way);
    } else {
        Way evicted;
        drain = later(drain, write_path_free(memory));
        way = cache_replace(cache, line, &evicted);
        way->partial = true;
        evict(memory, 0, &evicted, drain);
        if (memory->last_line != line)
            memory->last_line = UINT64_MAX; /* the line of the last load may be the one that went */
    }
    if (way->partial)
        mark_written(way, address, bytes);
    way->dirty = true;
    memory->store_free = drain;
    if (memory->config->store_buffer) {
        memory->stores[memory->next_store] = drain;
        memory->next_store = (memory->next_store + 1) % memory->config->store_buffer;
    }
    return drain;
}
