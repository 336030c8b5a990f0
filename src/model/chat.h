/* Chat templates: how a conversation is written down for a model.
 *
 * Models carry a Jinja text that writes it. tamis has no template engine: it recognises the family of the text by what
 * stands in it, and writes with a table of families (chat_families.c). What comes out is what transformers'
 * apply_chat_template renders (tests/golden/chat); a template that is of no known family is refused.
 *
 * What the template itself writes is markup, in which special tokens are read; what people and models said is not, so
 * that nobody can put a control token into a conversation by writing its name. */
#ifndef TMS_MODEL_CHAT_H
#define TMS_MODEL_CHAT_H

#include <tamis/tamis.h>
#include <time.h>

#include "model/tokenize.h"

/* Where the system text goes. */
enum tms_chat_place {
    TMS_CHAT_BLOCK,    /* its own block before the conversation */
    TMS_CHAT_IN_FIRST, /* before the first question, inside its block */
    TMS_CHAT_IN_LAST,  /* before the last question: it moves with the conversation */
};

enum {
    TMS_CHAT_TRIM_SYSTEM = 1, /* white space at both ends goes, as Python's strip has it */
    TMS_CHAT_TRIM_USER = 2,
    TMS_CHAT_TRIM_ANSWER = 4,
    TMS_CHAT_TRIM_JOINED = 8, /* of system text and question together */
};

/* What becomes of the thinking in earlier answers. */
enum tms_chat_thinking {
    TMS_CHAT_KEEP,           /* nothing */
    TMS_CHAT_DROP,           /* what stands before the last </think>, and that, go */
    TMS_CHAT_DROP_AND_LINES, /* and the line ends behind it */
    TMS_CHAT_DROP_ALL_LINES, /* the same, and those at the start of an answer without thinking */
};

/* Texts in markup may hold {bos}, {eos} (the model's tokens), {date} ("26 Jul 2024") and {today} ("2024-07-26").
 * needs, lacks: what stands and does not stand in the Jinja text, where "\n" is a line end and every quote is '. */
struct tms_chat_family {
    const char *name, *models;
    const char *needs[5], *lacks[8];
    const char *begin;
    enum tms_chat_place place;
    const char *system_before, *system_after;
    const char *no_system; /* stands for the block if there is no system text */
    const char *user_before, *user_after;
    const char *answer_before, *answer_after;
    const char *prompt; /* what an answer begins with */
    unsigned trims;
    enum tms_chat_thinking thinking;
    const char *ends[3];    /* tokens that end an answer, beside the tokenizer's own */
    bool default_in_text;   /* the Jinja text may hold a system text of its own, in one literal */
    bool default_not_known; /* it holds one that tamis does not read */
    bool harmony;           /* answers come in channels, of which "final" is what is said */
};

/* i = 0 … until NULL. */
const struct tms_chat_family *tms_chat_family_at(size_t i);
/* "qwen3, …, gpt-oss", for messages: in `room`, which the caller frees. */
const char *tms_chat_family_names(struct tms_buf *room);
/* By name, any case; TMS_EINPUT with the list. */
tms_status tms_chat_family_find(const struct tms_chat_family **out, const char *name, struct tms_error *err);

/* A model's way to write conversations. Zero-initialize; free with tms_chat_template_free. */
struct tms_chat_template {
    const struct tms_chat_family *family;
    bool bos;             /* {bos} stands for something */
    bool no_default;      /* no system text unless a message gives one: nothing is missing */
    char *default_system; /* owned, or NULL */
};
/* Recognises a Jinja text. `where` opens the message. */
tms_status tms_chat_template_read(struct tms_chat_template *out, const char *jinja, const char *where,
                                  struct tms_error *err);
/* The template of the model at `path` (a folder or a GGUF file), or the family of that name, if it is not NULL. */
tms_status tms_chat_template_open(struct tms_chat_template *out, const char *path, const char *name,
                                  const struct tms_tokenizer *tokenizer, struct tms_error *err);
void tms_chat_template_free(struct tms_chat_template *t);

/* What markup is made with. */
struct tms_chat_words {
    const char *bos, *eos; /* texts of these tokens; "" if there are none */
    time_t now;
};

/* A conversation, written. */
struct tms_chat_text {
    struct tms_buf text;
    struct tms_text_span *markup; /* in order */
    size_t n_markup, cap_markup;
    struct tms_text_span *answers; /* [n_answers]: where each earlier answer stands, behind what began it */
    size_t n_answers, cap_answers;
};
void tms_chat_text_free(struct tms_chat_text *t);
/* Messages are system (at most one, the first), user, assistant, user, … user, or end with an answer; TMS_EINPUT
 * for others. `prompt`: what the next answer begins with is appended. */
tms_status tms_chat_write(struct tms_chat_text *out, const struct tms_chat_template *t,
                          const struct tms_chat_words *words, const struct tms_message *messages, size_t n, bool prompt,
                          struct tms_error *err);

/* The text of a token, with a NUL; empty for none (id < 0). */
tms_status tms_chat_token_text(const struct tms_tokenizer *t, int32_t id, struct tms_buf *out, struct tms_error *err);
/* Appends the ids of bytes [begin, end) of a written conversation: special tokens only in markup. */
tms_status tms_chat_ids(struct tms_tokenizer *t, const struct tms_chat_text *text, size_t begin, size_t end,
                        int32_t **ids, size_t *n_ids, size_t *cap, struct tms_error *err);

/* What of an answer is remembered: without thinking, channels and white space that the template drops. Appended. */
void tms_chat_remembered(const struct tms_chat_family *family, const char *answer, size_t n, struct tms_buf *out);

#endif
