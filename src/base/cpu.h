/* Which vector instructions this machine has. TAMIS_CPU=scalar|neon|avx2|avx512 in the environment lowers the level
 * (never raises it), so that tests can run every variant; the choice is made once.
 *
 * Every machine knows some of the levels: scalar < avx2 < avx512 on x86-64, scalar < neon on aarch64, only scalar on
 * others. Asked for a level that it does not know, it takes the highest of its own that is lower in the order below. */
#ifndef TMS_BASE_CPU_H
#define TMS_BASE_CPU_H

#include <stdbool.h>

enum tms_cpu {
    TMS_CPU_SCALAR,
    TMS_CPU_NEON,   /* what every aarch64 has */
    TMS_CPU_AVX2,   /* with FMA and F16C */
    TMS_CPU_AVX512, /* F, BW, DQ, VL */
};

enum tms_cpu tms_cpu_level(void);
/* True if the level is AVX-512 and the machine has its products of bytes (VNNI), too. */
bool tms_cpu_has_vnni(void);

/* For tests: from now on at most this level. Returns the level that is now in use; never above the machine's own. */
enum tms_cpu tms_cpu_force(enum tms_cpu level);

/* "scalar", "neon", … */
const char *tms_cpu_name(enum tms_cpu level);

/* One source, several machines. TMS_BY_CPU(linkage, name, (parameters), (arguments)) defines name(parameters) from the
 * always-inline function name_body, which it compiles once per level; the level is looked up at every call, so put
 * whole rows into it. The compiler does the vectorizing, without leave to reorder sums: results are equal. */
/* NOLINTBEGIN(bugprone-macro-parentheses): parameter lists and linkage cannot have them */
#define TMS_INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define TMS_TARGET_AVX2   __attribute__((target("avx2,fma,f16c")))
#define TMS_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define TMS_BY_CPU(linkage, name, parameters, arguments)                                                               \
    static void name##_scalar parameters                                                                               \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }                                                                                                                  \
    TMS_TARGET_AVX2 static void name##_avx2 parameters                                                                 \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }                                                                                                                  \
    TMS_TARGET_AVX512 static void name##_avx512 parameters                                                             \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }                                                                                                                  \
    linkage void name parameters                                                                                       \
    {                                                                                                                  \
        switch (tms_cpu_level()) {                                                                                     \
        case TMS_CPU_AVX512: name##_avx512 arguments; break;                                                           \
        case TMS_CPU_AVX2: name##_avx2 arguments; break;                                                               \
        default: name##_scalar arguments; break;                                                                       \
        }                                                                                                              \
    }
#else
#define TMS_BY_CPU(linkage, name, parameters, arguments)                                                               \
    linkage void name parameters                                                                                       \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }
#endif
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
