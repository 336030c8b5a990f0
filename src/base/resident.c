/* See resident.h. */
#include "base/resident.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

uint64_t tms_resident_bytes(void)
{
    unsigned long long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &all, &pages) != 2) pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void tms_give_memory_back(void)
{
    mallopt(M_MMAP_THRESHOLD, 128 << 10); /* its first value, which glibc would raise with what is freed */
    malloc_trim(0);
}
