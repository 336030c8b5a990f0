/* See cpu.h. */
#include "base/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static enum tms_cpu machine_level(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    /* F16C is bit 29 of ecx; clang's __builtin_cpu_supports does not know it by name. The others say also whether the
     * operating system saves the registers. */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 29 & 1)) return TMS_CPU_SCALAR;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return TMS_CPU_SCALAR;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return TMS_CPU_AVX2;
    return TMS_CPU_AVX512;
#else
    return TMS_CPU_SCALAR;
#endif
}

static atomic_int chosen = -1;

static enum tms_cpu lower(enum tms_cpu a, enum tms_cpu b)
{
    return a < b ? a : b;
}

enum tms_cpu tms_cpu_level(void)
{
    int level = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (level >= 0) return (enum tms_cpu)level;
    enum tms_cpu found = machine_level();
    const char *wish = getenv("TAMIS_CPU");
    if (wish && strcmp(wish, "scalar") == 0) found = TMS_CPU_SCALAR;
    if (wish && strcmp(wish, "avx2") == 0) found = lower(found, TMS_CPU_AVX2);
    atomic_store_explicit(&chosen, (int)found, memory_order_relaxed);
    return found;
}

enum tms_cpu tms_cpu_force(enum tms_cpu level)
{
    level = lower(level, machine_level());
    atomic_store_explicit(&chosen, (int)level, memory_order_relaxed);
    return level;
}
