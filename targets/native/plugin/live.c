#define _GNU_SOURCE
#include "live.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checked.h"

struct live_file {
    char magic[8];
    struct live_place place;
};

static struct live_file *live;

void open_live(const char *count_path) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s.live", count_path) >= (int)sizeof path) {
        die("the path of the count file is too long");
    }
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof *live) != 0) {
        die("the live file beside the count file cannot be written");
    }
    live = mmap(NULL, sizeof *live, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (live == MAP_FAILED) {
        die("the live file cannot be mapped");
    }
    memcpy(live->magic, "EKLIVE01", sizeof live->magic);
}

void show_live(struct live_place place) { live->place = place; }

void show_live_instructions(uint64_t instructions) { live->place.instructions = instructions; }
