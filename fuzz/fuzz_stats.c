/* Any bytes as statistics of a calibration run: refused with one line, or opened, and then what is read of any input is
 * whole and finite, or refused with one line. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/stats.h"

static bool failed(tms_status status, const struct tms_error *err)
{
    if (status != TMS_OK) fuzz_require(err->message[0] && !strchr(err->message, '\n'), "the message is one line");
    return status != TMS_OK;
}

static void check_hessian(const struct tms_stats *stats, const char *weight, size_t part, size_t cols)
{
    struct tms_hessian *hessian = NULL;
    struct tms_error err = {{0}};
    if (failed(tms_stats_hessian(stats, weight, part, cols, &hessian, &err), &err)) {
        fuzz_require(hessian == NULL, "out-parameters stay untouched");
        return;
    }
    if (!hessian) return;
    fuzz_require(hessian->n == cols && hessian->n_tokens > 0 && !hessian->panel, "finished, of the right size");
    for (size_t i = 0; i < cols; i++)
        for (size_t j = 0; j < cols; j++)
            fuzz_require(isfinite(hessian->h[i * hessian->ld + j]) &&
                             hessian->h[i * hessian->ld + j] == hessian->h[j * hessian->ld + i],
                         "finite and symmetric");
    tms_hessian_free(hessian);
}

static void check_input(const struct tms_stats *stats, const char *weight, const char *input, size_t n_bytes)
{
    struct tms_stats_input in = {0};
    struct tms_hessians_seen seen = {0};
    struct tms_error err = {{0}};
    uint64_t *counts = NULL;
    size_t n = 0;
    if (!failed(tms_stats_read(stats, weight, &in, &err), &err) && in.cols) {
        fuzz_require(in.parts * in.cols <= n_bytes / sizeof(double), "no more sums than the file has");
        for (size_t i = 0; i < in.parts * in.cols; i++) fuzz_require(isfinite(in.squares[i]), "sums are finite");
        for (size_t i = 0; i < in.parts && i < 3; i++) check_hessian(stats, weight, i, in.cols);
        float *largest = calloc(in.cols, sizeof *largest);
        if (largest && !failed(tms_stats_largest(stats, weight, 0, in.cols, largest, &err), &err))
            for (size_t i = 0; i < in.cols; i++) fuzz_require(largest[i] >= 0, "magnitudes");
        free(largest);
        tms_stats_drop(&in);
    }
    check_hessian(stats, weight, 0, 1);
    check_hessian(stats, weight, 0, SIZE_MAX);
    if (!failed(tms_stats_counts(stats, input, &counts, &n, &err), &err) && counts)
        fuzz_require(n <= n_bytes / sizeof *counts, "no more counts than the file has");
    free(counts);
    (void)failed(tms_stats_hessians_seen(stats, input, &seen, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_file file = fuzz_file_open(bytes, n);
    struct tms_stats *stats = NULL;
    struct tms_error err = {{0}};
    const char *weight;
    json_t *input;
    size_t n_weights = 0;
    if (!failed(tms_stats_open(&stats, file.path, &err), &err)) {
        fuzz_require(tms_stats_fingerprint(stats) && tms_stats_model(stats), "it says of which model it is");
        json_object_foreach(json_object_get(stats->about, "weights"), weight, input)
        {
            if (json_is_string(input) && n_weights++ < 8) check_input(stats, weight, json_string_value(input), n);
        }
        tms_stats_close(stats);
    }
    fuzz_file_close(&file);
    return 0;
}
