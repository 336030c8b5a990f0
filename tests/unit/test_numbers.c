/* The small float formats against definitions with ldexp, at every value and every border, on every level. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "base/numbers.h"

static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* ---- one description per format; the single functions and the rows are called alike ---- */

struct format {
    const char *name;
    int exponent_bits, mantissa_bits, bias;
    uint32_t infinity, largest; /* codes; infinity 0: none, narrowing saturates */
    uint32_t narrowed_nan;
    float (*widen)(uint32_t);
    uint32_t (*narrow)(float);
    void (*widen_n)(const void *, float *, size_t);
    void (*narrow_n)(const float *, void *, size_t);
};

static float widen_f16(uint32_t h)
{
    return tms_f16_to_f32((uint16_t)h);
}
static uint32_t narrow_f16(float x)
{
    return tms_f32_to_f16(x);
}
static float widen_bf16(uint32_t h)
{
    return tms_bf16_to_f32((uint16_t)h);
}
static uint32_t narrow_bf16(float x)
{
    return tms_f32_to_bf16(x);
}
static float widen_e4m3(uint32_t b)
{
    return tms_e4m3_to_f32((uint8_t)b);
}
static uint32_t narrow_e4m3(float x)
{
    return tms_f32_to_e4m3(x);
}
static float widen_e5m2(uint32_t b)
{
    return tms_e5m2_to_f32((uint8_t)b);
}
static uint32_t narrow_e5m2(float x)
{
    return tms_f32_to_e5m2(x);
}

static const struct format formats[] = {
    {"f16", 5, 10, 15, 0x7c00, 0x7bff, 0x7e00, widen_f16, narrow_f16, tms_f16_to_f32_n, tms_f32_to_f16_n},
    {"bf16", 8, 7, 127, 0x7f80, 0x7f7f, 0, widen_bf16, narrow_bf16, tms_bf16_to_f32_n, tms_f32_to_bf16_n},
    {"e4m3", 4, 3, 7, 0, 0x7e, 0x7f, widen_e4m3, narrow_e4m3, tms_e4m3_to_f32_n, tms_f32_to_e4m3_n},
    {"e5m2", 5, 2, 15, 0x7c, 0x7b, 0x7f, widen_e5m2, narrow_e5m2, tms_e5m2_to_f32_n, tms_f32_to_e5m2_n},
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

static uint32_t sign_of(const struct format *f)
{
    return 1u << (f->exponent_bits + f->mantissa_bits);
}

static size_t bytes_of(const struct format *f)
{
    return f->exponent_bits + f->mantissa_bits == 15 ? 2 : 1;
}

/* The value of a finite code, without the functions under test. */
static double defined_value(const struct format *f, uint32_t code)
{
    int mantissa = (int)(code & ((1u << f->mantissa_bits) - 1));
    int exponent = (int)(code >> f->mantissa_bits & ((1u << f->exponent_bits) - 1));
    double v = exponent ? ldexp((1 << f->mantissa_bits) + mantissa, exponent - f->bias - f->mantissa_bits)
                        : ldexp(mantissa, 1 - f->bias - f->mantissa_bits);
    return code & sign_of(f) ? -v : v;
}

static void every_code_widens_to_its_definition(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct format *f = &formats[i];
        for (uint32_t code = 0; code < 2 * sign_of(f); code++) {
            uint32_t magnitude = code & (sign_of(f) - 1);
            float x = f->widen(code);
            bool finite = magnitude <= f->largest;
            bool infinite = f->infinity && magnitude == f->infinity;
            bool right = finite     ? x == (float)defined_value(f, code) && (double)x == defined_value(f, code)
                         : infinite ? isinf(x)
                                    : isnan(x);
            if (!right || (signbit(x) != 0) != ((code & sign_of(f)) != 0))
                fail_msg("%s %x widens to %a", f->name, code, (double)x);
        }
    }
}

static void every_code_survives_widening_and_narrowing(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct format *f = &formats[i];
        for (uint32_t code = 0; code < 2 * sign_of(f); code++) {
            uint32_t magnitude = code & (sign_of(f) - 1), back = f->narrow(f->widen(code));
            if (magnitude <= f->largest || (f->infinity && magnitude == f->infinity)) {
                assert_int_equal(back, code);
            } else if (f->narrowed_nan) {
                assert_int_equal(back, f->narrowed_nan | (code & sign_of(f)));
            } else {
                assert_int_equal(back, code | 0x40); /* bf16 keeps the payload, quieted */
            }
        }
    }
}

/* Nearest, ties to even, by the definition: between neighbours code and code + 1 decide with doubles. */
static void midpoints_narrow_to_even_and_their_neighbours_to_the_nearer(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct format *f = &formats[i];
        for (uint32_t code = 0; code < f->largest; code++) {
            /* Doubles hold the midpoint exactly, and f32 does too, bf16's subnormals included. */
            float middle = (float)((defined_value(f, code) + defined_value(f, code + 1)) / 2);
            float below = nextafterf(middle, 0), above = nextafterf(middle, INFINITY);
            uint32_t even = code % 2 ? code + 1 : code;
            for (uint32_t sign = 0; sign < 2; sign++) {
                float s = sign ? -1.0f : 1.0f;
                uint32_t bit = sign ? sign_of(f) : 0;
                if (f->narrow(s * middle) != (even | bit) || f->narrow(s * below) != (code | bit) ||
                    f->narrow(s * above) != ((code + 1) | bit))
                    fail_msg("%s near %a: %x %x %x", f->name, (double)middle, f->narrow(s * below),
                             f->narrow(s * middle), f->narrow(s * above));
            }
        }
    }
}

static void random_floats_narrow_to_the_nearest(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct format *f = &formats[i];
        double limit = defined_value(f, f->largest);
        for (int k = 0; k < 200000; k++) {
            uint32_t u = (uint32_t)next_random(&seed);
            float x = tms_f32_from_bits(u);
            if (!(fabs((double)x) <= limit)) continue;
            uint32_t code = f->narrow(x), magnitude = code & (sign_of(f) - 1);
            double error = fabs(defined_value(f, code) - (double)x);
            bool right = (code & sign_of(f) ? 1u : 0u) == u >> 31;
            if (magnitude > 0) right = right && error <= fabs(defined_value(f, code - 1) - (double)x);
            if (magnitude < f->largest) right = right && error <= fabs(defined_value(f, code + 1) - (double)x);
            if (!right) fail_msg("%s: %a narrows to %x", f->name, (double)x, code);
        }
    }
}

static void overflow_is_infinite_or_saturates(void **state)
{
    (void)state;
    assert_int_equal(tms_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(tms_f32_to_f16(65520), 0x7c00);
    assert_int_equal(tms_f32_to_f16(-65536), 0xfc00);
    assert_int_equal(tms_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(tms_f32_to_bf16(3.4e38f), 0x7f80);
    assert_int_equal(tms_f32_to_e5m2(61439.996f), 0x7b);
    assert_int_equal(tms_f32_to_e5m2(61440), 0x7c);
    assert_int_equal(tms_f32_to_e5m2(-1e38f), 0xfc);
    assert_int_equal(tms_f32_to_e4m3(448), 0x7e);
    assert_int_equal(tms_f32_to_e4m3(464.1f), 0x7e);
    assert_int_equal(tms_f32_to_e4m3(1e38f), 0x7e);
    assert_int_equal(tms_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(tms_f32_to_e4m3(NAN), 0x7f);
    assert_int_equal(tms_f32_to_e4m3(-NAN), 0xff);
}

static void nans_keep_their_sign_and_are_quiet(void **state)
{
    (void)state;
    assert_int_equal(tms_f32_to_f16(tms_f32_from_bits(0x7f800001)), 0x7e00);
    assert_int_equal(tms_f32_to_f16(tms_f32_from_bits(0xffffffff)), 0xfe00);
    assert_int_equal(tms_f32_to_bf16(tms_f32_from_bits(0xff800001)), 0xffc0);
    assert_int_equal(tms_f32_bits(tms_f16_to_f32(0x7c01)), 0x7fc02000);
    assert_int_equal(tms_f32_bits(tms_f16_to_f32(0xfe05)), 0xffc0a000);
}

static void e8m0_is_powers_of_two(void **state)
{
    (void)state;
    for (int b = 0; b < 255; b++) {
        float x = tms_e8m0_to_f32((uint8_t)b);
        assert_true((double)x == ldexp(1, b - 127));
        assert_int_equal(tms_f32_to_e8m0(x), b);
        assert_int_equal(tms_f32_to_e8m0(-x), b);
        if (b == 254) continue;
        float middle = (float)ldexp(1.5, b - 127);
        assert_int_equal(tms_f32_to_e8m0(middle), b % 2 ? b + 1 : b);
        assert_int_equal(tms_f32_to_e8m0(nextafterf(middle, 0)), b);
        assert_int_equal(tms_f32_to_e8m0(nextafterf(middle, INFINITY)), b + 1);
    }
    assert_true(isnan(tms_e8m0_to_f32(255)));
    assert_int_equal(tms_f32_to_e8m0(0), 0);
    assert_int_equal(tms_f32_to_e8m0(1e-45f), 0);
    assert_int_equal(tms_f32_to_e8m0(3.4e38f), 254);
    assert_int_equal(tms_f32_to_e8m0(INFINITY), 254);
    assert_int_equal(tms_f32_to_e8m0(-NAN), 255);
}

/* ---- rows ---- */

/* Bit patterns of every kind: each exponent with few, many and random mantissa bits, both signs. */
static size_t telling_floats(float *x)
{
    size_t n = 0;
    uint64_t seed = 2;
    for (uint32_t exponent = 0; exponent < 256; exponent++)
        for (uint32_t k = 0; k < 64; k++) {
            uint32_t mantissa = (uint32_t)next_random(&seed);
            if (k < 24)
                mantissa = 1u << k;
            else if (k < 47)
                mantissa = (1u << (k - 24)) - 1;
            else if (k < 52)
                mantissa &= 0x00fff000;
            x[n++] = tms_f32_from_bits(exponent << 23 | (mantissa & 0x7fffff) | (uint32_t)(seed >> 63) << 31);
        }
    return n;
}

static void rows_equal_single_values_on_every_level(void **state)
{
    (void)state;
    static float x[256 * 64], wide[1 << 16];
    static uint8_t codes[2 << 16], got[2 << 16];
    size_t n = telling_floats(x);
    for (int level = 0; level < N_LEVELS; level++) {
        tms_cpu_force(levels[level]);
        for (int i = 0; i < N_FORMATS; i++) {
            const struct format *f = &formats[i];
            size_t size = bytes_of(f), n_codes = 2 * sign_of(f);
            for (size_t k = 0; k < n; k++) {
                uint32_t code = f->narrow(x[k]);
                memcpy(codes + size * k, &code, size);
            }
            f->narrow_n(x, got, n);
            assert_same_bytes(got, codes, n * size, f->name);
            for (uint32_t code = 0; code < n_codes; code++) memcpy(codes + size * code, &code, size);
            f->widen_n(codes, wide, n_codes);
            for (uint32_t code = 0; code < n_codes; code++) {
                uint32_t want = tms_f32_bits(f->widen(code));
                if (tms_f32_bits(wide[code]) != want)
                    fail_msg("%s %x widens to %x in a row, %x alone", f->name, code, tms_f32_bits(wide[code]), want);
            }
        }
        tms_f32_to_e8m0_n(x, got, n);
        for (size_t k = 0; k < n; k++) assert_int_equal(got[k], tms_f32_to_e8m0(x[k]));
        for (int b = 0; b < 256; b++) codes[b] = (uint8_t)b;
        tms_e8m0_to_f32_n(codes, wide, 256);
        for (int b = 0; b < 256; b++)
            assert_int_equal(tms_f32_bits(wide[b]), tms_f32_bits(tms_e8m0_to_f32((uint8_t)b)));
    }
}

static void rows_of_any_length_stay_in_their_bounds(void **state)
{
    (void)state;
    float x[70], wide[72];
    uint8_t codes[2 * 72 + 1], from[2 * 70 + 1];
    for (int k = 0; k < 70; k++) x[k] = (float)k - 35.5f;
    for (int level = 0; level < N_LEVELS; level++) {
        tms_cpu_force(levels[level]);
        for (int i = 0; i < N_FORMATS; i++) {
            const struct format *f = &formats[i];
            size_t size = bytes_of(f);
            for (size_t n = 0; n <= 70; n++) {
                memset(codes, 0xee, sizeof codes);
                f->narrow_n(x, codes + 1, n); /* misaligned, too */
                assert_int_equal(codes[0], 0xee);
                assert_int_equal(codes[1 + size * n], 0xee);
                memcpy(from, codes, 1 + size * n);
                wide[n] = 12345;
                f->widen_n(from + 1, wide, n);
                assert_true(wide[n] == 12345);
                for (size_t k = 0; k < n; k++) assert_true(wide[k] == f->widen(f->narrow(x[k])));
            }
        }
    }
}

static void first_nonfinite_is_found_wherever_it_lies(void **state)
{
    (void)state;
    enum { N = 1100 };
    static float x[N];
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
    for (int level = 0; level < N_LEVELS; level++) {
        tms_cpu_force(levels[level]);
        for (size_t i = 0; i < N; i++) x[i] = i % 2 ? 3.4028235e38f : -1e-45f;
        assert_int_equal(tms_first_nonfinite(x, N), N);
        assert_int_equal(tms_first_nonfinite(x, 0), 0);
        for (size_t i = N; i-- > 0;) {
            x[i] = tms_f32_from_bits(bad[i % 5]);
            assert_int_equal(tms_first_nonfinite(x, N), i);
            assert_int_equal(tms_first_nonfinite(x, i), i);
            if (i % 3 == 0)
                x[i] = 0;
            else if (i + 1 < N)
                x[i + 1] = 0;
        }
    }
}

static void forcing_a_level_never_goes_beyond_the_machine(void **state)
{
    (void)state;
    enum tms_cpu best = tms_cpu_force(TMS_CPU_AVX512);
    assert_int_equal(tms_cpu_level(), best);
    assert_int_equal(tms_cpu_force(TMS_CPU_SCALAR), TMS_CPU_SCALAR);
    assert_int_equal(tms_cpu_level(), TMS_CPU_SCALAR);
    assert_int_equal(tms_cpu_force(TMS_CPU_AVX512), best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_widens_to_its_definition),
        cmocka_unit_test(every_code_survives_widening_and_narrowing),
        cmocka_unit_test(midpoints_narrow_to_even_and_their_neighbours_to_the_nearer),
        cmocka_unit_test(random_floats_narrow_to_the_nearest),
        cmocka_unit_test(overflow_is_infinite_or_saturates),
        cmocka_unit_test(nans_keep_their_sign_and_are_quiet),
        cmocka_unit_test(e8m0_is_powers_of_two),
        cmocka_unit_test(rows_equal_single_values_on_every_level),
        cmocka_unit_test(rows_of_any_length_stay_in_their_bounds),
        cmocka_unit_test(first_nonfinite_is_found_wherever_it_lies),
        cmocka_unit_test(forcing_a_level_never_goes_beyond_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
