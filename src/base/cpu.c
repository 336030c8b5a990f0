/* See cpu.h. */
#include "base/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[] = {"scalar", "neon", "avx2", "avx512"};
enum { N_LEVELS = sizeof names / sizeof names[0] };

const char *tms_cpu_name(enum tms_cpu level)
{
    return names[level];
}

/* The highest level of this machine that is not above `limit`. */
static enum tms_cpu level_up_to(enum tms_cpu limit)
{
#if defined(__x86_64__)
    if (limit < TMS_CPU_AVX2) return TMS_CPU_SCALAR;
    unsigned a, b, c, d;
    /* F16C is bit 29 of ecx; clang's __builtin_cpu_supports does not know it by name. The others say also whether the
     * operating system saves the registers. */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 29 & 1)) return TMS_CPU_SCALAR;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return TMS_CPU_SCALAR;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return TMS_CPU_AVX2;
    return limit;
#elif defined(__aarch64__)
    return limit < TMS_CPU_NEON ? TMS_CPU_SCALAR : TMS_CPU_NEON;
#else
    (void)limit;
    return TMS_CPU_SCALAR;
#endif
}

static atomic_int chosen = -1;

enum tms_cpu tms_cpu_level(void)
{
    int level = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (level >= 0) return (enum tms_cpu)level;
    enum tms_cpu limit = TMS_CPU_AVX512;
    const char *wish = getenv("TAMIS_CPU");
    for (int i = 0; wish && i < N_LEVELS; i++)
        if (strcmp(wish, names[i]) == 0) limit = (enum tms_cpu)i;
    enum tms_cpu found = level_up_to(limit);
    atomic_store_explicit(&chosen, (int)found, memory_order_relaxed);
    return found;
}

bool tms_cpu_has_vnni(void)
{
#if defined(__x86_64__)
    return tms_cpu_level() == TMS_CPU_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

enum tms_cpu tms_cpu_force(enum tms_cpu level)
{
    level = level_up_to(level);
    atomic_store_explicit(&chosen, (int)level, memory_order_relaxed);
    return level;
}
