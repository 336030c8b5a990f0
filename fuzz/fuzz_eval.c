/* Any bytes as what a model is measured on: refused with one line, or figures that are numbers.
 *
 * The first byte chooses: questions (JSON lines), token ids or a text; bit 2 whether there is a base. */
#include "fuzz.h"

#include <math.h>
#include <string.h>
#include <tamis/tamis.h>

static void refused(tms_status status, const struct tms_error *err)
{
    fuzz_require(status == TMS_EINPUT, "what is refused is bad input");
    fuzz_require(err->message[0] && !strchr(err->message, '\n'), "the message is one line");
}

static void is_share(struct tms_estimate x)
{
    fuzz_require(x.value >= 0 && x.value <= 1 && x.error >= 0, "shares lie between 0 and 1");
}

static void questions(const char *model, const char *path, const struct tms_eval_options *options)
{
    struct tms_error err = {{0}};
    struct tms_tasks_result *r = NULL;
    tms_status status = tms_evaluate_tasks(model, path, options, &r, &err);
    if (status != TMS_OK) {
        fuzz_require(!r, "a failure leaves no result");
        refused(status, &err);
        return;
    }
    is_share(r->accuracy);
    is_share(r->accuracy_normalized);
    if (r->has_base) is_share(r->same_answer);
    for (size_t i = 0; i < r->n_questions; i++) {
        const struct tms_task_answer *a = &r->answers[i];
        fuzz_require(a->n_choices > 1 && a->right < a->n_choices && a->chosen < a->n_choices, "answers are choices");
        for (size_t k = 0; k < a->n_choices; k++) fuzz_require(a->log_p[k] < 0, "no choice is certain");
    }
    tms_tasks_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *model = getenv("FUZZ_TINY_MODEL"); /* a small model with a tokenizer */
    if (!model) model = "tests/golden/arch/qwen3";
    if (n < 1 || n > 4096 || access(model, R_OK) != 0) return 0;
    struct tms_eval_options options = {
        .context = 8, .n_chunks = 2, .n_threads = 1, .base = bytes[0] & 4 ? model : NULL};
    struct fuzz_file file = fuzz_file_open(bytes + 1, n - 1);
    if (bytes[0] % 4 == 0) {
        questions(model, file.path, &options);
    } else {
        struct tms_error err = {{0}};
        struct tms_eval_result r;
        if (bytes[0] % 4 == 1)
            options.ids = file.path;
        else
            options.data = file.path;
        options.style = bytes[0] % 4 == 3 ? "full" : "llama";
        tms_status status = tms_evaluate(model, &options, &r, &err);
        if (status != TMS_OK) {
            refused(status, &err);
        } else {
            fuzz_require(isfinite(r.perplexity.value) && r.perplexity.value > 1, "perplexities are above 1");
            fuzz_require(!r.has_base || r.kl.max == 0, "a model is what it is");
        }
    }
    fuzz_file_close(&file);
    return 0;
}
