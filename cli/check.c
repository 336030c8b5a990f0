/* tamis check: find what is broken before hours of work. */
#include "cli.h"

int run_check(const struct command *self, int argc, char **argv)
{
    struct common common;
    const char *model, *reader = NULL;
    const struct option rows[] = {{"for", 0, OPTION_TEXT, &reader, "READER",
                                   "also the rules of a loader: vllm, transformers, gptqmodel or autoawq"}};
    struct tms_error err;
    struct progress_bar bar;
    struct tms_check_result result;
    int code = parse_options(self, argc, argv, rows, 1, &common, &model, 1);
    if (code >= 0) return code;
    struct findings findings = {.json = common.json, .lines = json_array(), .bar = &bar};
    struct tms_check_options options = {.n_threads = (unsigned)common.threads,
                                        .finding = show_finding,
                                        .finding_ctx = &findings,
                                        .progress = progress_show,
                                        .progress_ctx = &bar};
    progress_begin(&bar, &common);
    size_t n_reader = 0;
    tms_status status = tms_check(model, &options, &result, &err);
    if (status == TMS_OK && reader) {
        status = tms_check_reader(model, reader, show_finding, &findings, &n_reader, &err);
        /* what cannot be opened was told already */
        if (status == TMS_EINPUT && result.n_findings) status = TMS_OK;
        result.n_findings += n_reader;
    }
    progress_end(&bar);
    if (status != TMS_OK) {
        json_decref(findings.lines);
        return fail_with(status, &err);
    }
    code = result.n_findings ? 2 : 0;
    if (common.json) {
        int printed =
            print_json(json_pack("{s:s, s:b, s:o, s:I, s:I, s:I}", "model", model, "ok", code == 0, "findings",
                                 findings.lines, "tensors", (json_int_t)result.n_tensors, "bytes_read",
                                 (json_int_t)result.bytes, "tensors_not_decoded", (json_int_t)result.n_unread));
        return printed ? printed : code;
    }
    json_decref(findings.lines);
    if (code == 0 && !common.quiet)
        printf("%s: good: %zu tensors, %s, all values finite\n", model, result.n_tensors, human_bytes(result.bytes));
    if (result.n_unread && !common.quiet)
        printf("%s: values of %zu tensors were not looked at: tamis cannot decode their type yet\n", model,
               result.n_unread);
    return code;
}
