/* Any bytes as a chat template, and as a conversation written with one.
 *
 * The first byte chooses a family, or (255) that the rest is a Jinja text to be recognised. Bit 0 of the second byte:
 * the first message is a system text; bit 1: {bos} stands for something. Messages are separated by NULs. */
#include "fuzz.h"

#include <string.h>

#include "model/chat.h"

static void recognise(const uint8_t *bytes, size_t n)
{
    struct tms_chat_template t = {0};
    struct tms_error err = {{0}};
    char *text = calloc(n + 1, 1);
    if (!text) return;
    if (n) memcpy(text, bytes, n);
    tms_status status = tms_chat_template_read(&t, text, "model", &err);
    fuzz_require(status == TMS_OK ? t.family != NULL : status == TMS_EINPUT && !t.family, "a family, or refused");
    fuzz_require(status == TMS_OK || (err.message[0] && !strchr(err.message, '\n')), "the message is one line");
    tms_chat_template_free(&t);
    free(text);
}

static void check(const struct tms_chat_text *out)
{
    size_t end = 0;
    for (size_t i = 0; i < out->n_markup; i++) {
        fuzz_require(out->markup[i].begin >= end && out->markup[i].end > out->markup[i].begin, "markup is in order");
        end = out->markup[i].end;
    }
    fuzz_require(end <= out->text.n, "markup lies in the text");
    for (size_t i = 0; i < out->n_answers; i++)
        fuzz_require(out->answers[i].begin <= out->answers[i].end && out->answers[i].end <= out->text.n,
                     "answers lie in the text");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tms_chat_template t = {0};
    const struct tms_chat_words words = {"<bos>", "<eos>", 0};
    struct tms_message messages[16];
    struct tms_chat_text out = {0}, again = {0};
    struct tms_error err = {{0}};
    size_t n_messages = 0, n_families = 0;
    if (n < 2) return 0;
    if (bytes[0] == 255) {
        recognise(bytes + 1, n - 1);
        return 0;
    }
    while (tms_chat_family_at(n_families)) n_families++;
    t.family = tms_chat_family_at(bytes[0] % n_families);
    t.bos = bytes[1] & 2;
    t.no_default = true;
    bool system = bytes[1] & 1;
    for (const char *at = (const char *)bytes + 2, *end = (const char *)bytes + n; at <= end && n_messages < 16;) {
        const char *stop = memchr(at, 0, (size_t)(end - at));
        if (!stop) stop = end;
        size_t turn = n_messages - system;
        messages[n_messages] = (struct tms_message){system && n_messages == 0 ? "system"
                                                    : turn % 2                ? "assistant"
                                                                              : "user",
                                                    at, (size_t)(stop - at)};
        n_messages++;
        at = stop + 1;
    }
    tms_status status = tms_chat_write(&out, &t, &words, messages, n_messages, true, &err);
    fuzz_require(status == TMS_OK || (status == TMS_EINPUT && err.message[0]), "written, or refused");
    if (status == TMS_OK) {
        check(&out);
        fuzz_require(tms_chat_write(&again, &t, &words, messages, n_messages, true, &err) == TMS_OK &&
                         again.text.n == out.text.n && memcmp(again.text.data, out.text.data, out.text.n) == 0,
                     "the same each time");
    }
    tms_chat_text_free(&out);
    tms_chat_text_free(&again);
    return 0;
}
