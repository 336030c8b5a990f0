/* tms_evaluate_tasks: multiple-choice questions by likelihood.
 *
 * Each choice is one sequence: the tokens of "Question: {question}\nAnswer: {choice}". Scored are the tokens behind
 * those that it shares with "Question: {question}\nAnswer:" alone; so where a tokenizer joins the space and the first
 * word into a token, that token belongs to the choice.
 */
#include <tamis/tamis.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "eval/subjects.h"
#include "eval/statistics.h"

enum { MOST_CHOICES = 26 };

struct choice {
    size_t first_id, n_ids; /* of tasks.ids */
    size_t n_given;         /* ids that belong to the question */
    size_t n_bytes;
};

struct tasks {
    const char *path;
    struct tms_subjects subjects;
    int32_t *ids;
    size_t n_ids, cap_ids;
    struct choice *choices; /* question after question */
    size_t n_choices, cap_choices;
    struct tms_task_answer *answers;
    size_t n, cap;
    double *log_p; /* [n_choices], then those of the base */
};

/* ---- reading ---- */

struct question {
    const char *text, *choices[MOST_CHOICES]; /* borrowed from the JSON object */
    size_t n_choices, right;
};

#define BAD_LINE(...) tms_fail(err, TMS_EINPUT, "%s: line %zu: " __VA_ARGS__)

static tms_status read_choices(struct question *q, const struct tasks *t, size_t line, const json_t *object,
                               struct tms_error *err)
{
    const json_t *list = json_object_get(object, "choices");
    if (json_is_array(list)) {
        size_t n = json_array_size(list);
        if (n > MOST_CHOICES) return BAD_LINE("%zu choices are too many, at most %d", t->path, line, n, MOST_CHOICES);
        for (q->n_choices = 0; q->n_choices < n; q->n_choices++)
            q->choices[q->n_choices] = json_string_value(json_array_get(list, q->n_choices));
    } else {
        for (q->n_choices = 0; q->n_choices < MOST_CHOICES; q->n_choices++) {
            const char letter[2] = {(char)('A' + q->n_choices), 0};
            const json_t *text = json_object_get(object, letter);
            if (!text) break;
            q->choices[q->n_choices] = json_string_value(text);
        }
    }
    if (q->n_choices < 2) return BAD_LINE("at least two \"choices\" (or \"A\", \"B\", …) are needed", t->path, line);
    for (size_t i = 0; i < q->n_choices; i++)
        if (!q->choices[i] || !*q->choices[i])
            return BAD_LINE("choice %zu is no text with something in it", t->path, line, i);
    return TMS_OK;
}

static tms_status read_question(struct question *q, const struct tasks *t, size_t line, const json_t *object,
                                struct tms_error *err)
{
    q->text = json_string_value(json_object_get(object, "question"));
    if (!q->text) return BAD_LINE("\"question\" is missing or no text", t->path, line);
    tms_status status = read_choices(q, t, line, object, err);
    if (status != TMS_OK) return status;
    const json_t *answer = json_object_get(object, "answer");
    const char *letter = json_string_value(answer);
    json_int_t right = -1;
    if (json_is_integer(answer)) right = json_integer_value(answer);
    if (letter && letter[0] >= 'A' && letter[0] <= 'Z' && !letter[1]) right = letter[0] - 'A';
    if (letter && letter[0] >= 'a' && letter[0] <= 'z' && !letter[1]) right = letter[0] - 'a';
    if (right < 0 || (uint64_t)right >= q->n_choices)
        return BAD_LINE("\"answer\" is not one of the %zu choices (a number from 0, or a letter)", t->path, line,
                        q->n_choices);
    q->right = (size_t)right;
    return TMS_OK;
}

static tms_status add_choice(struct tasks *t, size_t line, const struct question *q, const char *choice,
                             struct tms_error *err)
{
    struct tms_buf text = {0};
    int32_t *given = NULL;
    size_t n_given = 0, cap_given = 0, n_prompt, same = 0, first = t->n_ids;
    tms_buf_printf(&text, "Question: %s\nAnswer:", q->text);
    n_prompt = text.n;
    tms_buf_printf(&text, " %s", choice);
    tms_status status = text.failed ? tms_fail_memory(err, text.n) : TMS_OK;
    if (status == TMS_OK)
        status =
            tms_subjects_encode(&t->subjects, t->path, (char *)text.data, n_prompt, &given, &n_given, &cap_given, err);
    if (status == TMS_OK)
        status =
            tms_subjects_encode(&t->subjects, t->path, (char *)text.data, text.n, &t->ids, &t->n_ids, &t->cap_ids, err);
    size_t n = t->n_ids - first;
    while (status == TMS_OK && same < n_given && same < n && given[same] == t->ids[first + same]) same++;
    if (status == TMS_OK && (same == 0 || same == n))
        status = BAD_LINE("choice '%.40s' leaves no token to predict", t->path, line, choice);
    if (status == TMS_OK && !tms_grow(&t->choices, &t->cap_choices, t->n_choices + 1, sizeof *t->choices))
        status = tms_fail_memory(err, (t->n_choices + 1) * sizeof *t->choices);
    if (status == TMS_OK)
        t->choices[t->n_choices++] =
            (struct choice){.first_id = first, .n_ids = n, .n_given = same, .n_bytes = strlen(choice)};
    tms_buf_free(&text);
    free(given);
    return status;
}

static tms_status add_line(struct tasks *t, size_t line, const char *text, size_t n_bytes, struct tms_error *err)
{
    struct question q;
    json_error_t where;
    json_t *object = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &where);
    tms_status status = TMS_OK;
    if (!json_is_object(object))
        status = BAD_LINE("%s", t->path, line, object ? "a JSON object is expected" : where.text);
    if (status == TMS_OK) status = read_question(&q, t, line, object, err);
    if (status == TMS_OK && !tms_grow(&t->answers, &t->cap, t->n + 1, sizeof *t->answers))
        status = tms_fail_memory(err, (t->n + 1) * sizeof *t->answers);
    if (status == TMS_OK)
        t->answers[t->n++] = (struct tms_task_answer){.line = line, .n_choices = q.n_choices, .right = q.right};
    for (size_t i = 0; status == TMS_OK && i < q.n_choices; i++) status = add_choice(t, line, &q, q.choices[i], err);
    json_decref(object);
    return status;
}

static tms_status read_file(struct tasks *t, struct tms_error *err)
{
    char *text = NULL;
    size_t n_bytes = 0, line = 0;
    tms_status status = tms_file_text(t->path, INT32_MAX, &text, &n_bytes, err);
    uint64_t most = t->subjects.options->n_chunks;
    for (char *c = text; status == TMS_OK && c < text + n_bytes && (most == 0 || t->n < most);) {
        char *end = memchr(c, '\n', (size_t)(text + n_bytes - c));
        if (!end) end = text + n_bytes;
        line++;
        size_t n = (size_t)(end - c), blank = 0;
        while (blank < n && strchr(" \t\r", c[blank])) blank++;
        if (blank < n) status = add_line(t, line, c, n, err);
        c = end + 1;
    }
    free(text);
    if (status == TMS_OK && t->n == 0) status = tms_fail(err, TMS_EINPUT, "%s: no questions in it", t->path);
    return status;
}

/* ---- scoring ---- */

static tms_status run(struct tasks *t, struct tms_error *err)
{
    size_t n_positions = 0, k = 0;
    struct tms_sequence *sequences = tms_calloc(t->n_choices, sizeof *sequences);
    t->log_p = tms_calloc(t->n_choices, 2 * sizeof *t->log_p);
    for (size_t i = 0; sequences && i < t->n_choices; i++) {
        const struct choice *c = &t->choices[i];
        sequences[i] = (struct tms_sequence){
            .ids = t->ids + c->first_id, .n = c->n_ids, .first = c->n_given - 1, .n_scored = c->n_ids - c->n_given};
        n_positions += sequences[i].n_scored;
    }
    struct tms_position *positions = tms_calloc(n_positions, sizeof *positions);
    tms_status status = sequences && positions && t->log_p ? tms_subjects_run(&t->subjects, "choice", sequences,
                                                                              t->n_choices, positions, n_positions, err)
                                                           : tms_fail_memory(err, n_positions * sizeof *positions);
    for (size_t i = 0; status == TMS_OK && i < t->n_choices; i++)
        for (size_t end = k + sequences[i].n_scored; k < end; k++) {
            t->log_p[i] -= positions[k].nll;
            t->log_p[t->n_choices + i] -= positions[k].nll_base;
        }
    free(positions);
    free(sequences);
    return status;
}

/* The largest of n; by_bytes: per byte of the choice. */
static size_t largest(const double *log_p, const struct choice *choices, size_t n, bool by_bytes)
{
    size_t best = 0;
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double x = by_bytes ? log_p[i] / (double)choices[i].n_bytes : log_p[i];
        if (i == 0 || x > most) {
            most = x;
            best = i;
        }
    }
    return best;
}

static void judge(struct tasks *t, struct tms_tasks_result *r)
{
    size_t right = 0, right_normalized = 0, base = 0, base_normalized = 0, same = 0, at = 0;
    r->has_base = t->subjects.n_models > 1;
    for (size_t i = 0; i < t->n; i++) {
        struct tms_task_answer *a = &t->answers[i];
        const double *log_p = t->log_p + at, *base_log_p = log_p + t->n_choices;
        const struct choice *choices = t->choices + at;
        a->log_p = log_p;
        a->chosen = largest(log_p, choices, a->n_choices, false);
        a->chosen_normalized = largest(log_p, choices, a->n_choices, true);
        right += a->chosen == a->right;
        right_normalized += a->chosen_normalized == a->right;
        if (r->has_base) {
            a->base_chosen = largest(base_log_p, choices, a->n_choices, false);
            a->base_chosen_normalized = largest(base_log_p, choices, a->n_choices, true);
            base += a->base_chosen == a->right;
            base_normalized += a->base_chosen_normalized == a->right;
            same += a->base_chosen == a->chosen;
        }
        at += a->n_choices;
    }
    r->accuracy = tms_share(right, t->n);
    r->accuracy_normalized = tms_share(right_normalized, t->n);
    if (!r->has_base) return;
    r->base_accuracy = tms_share(base, t->n);
    r->base_accuracy_normalized = tms_share(base_normalized, t->n);
    r->same_answer = tms_share(same, t->n);
}

struct owned_result {
    struct tms_tasks_result result; /* first: what callers have a pointer to */
    double *log_p;
};

tms_status tms_evaluate_tasks(const char *model, const char *path, const struct tms_eval_options *options,
                              struct tms_tasks_result **out, struct tms_error *err)
{
    double start = tms_seconds();
    struct tasks t = {.path = path};
    struct owned_result *r = calloc(1, sizeof *r);
    tms_status status = r ? TMS_OK : tms_fail_memory(err, sizeof *r);
    if (status == TMS_OK) status = tms_subjects_open(&t.subjects, model, options, true, err);
    if (status == TMS_OK) status = read_file(&t, err);
    if (status == TMS_OK) status = run(&t, err);
    if (status == TMS_OK) {
        judge(&t, &r->result);
        r->result.weights_alone = t.subjects.weights_alone;
        r->result.cache_bytes = t.subjects.cache_bytes;
        r->result.by_layer = t.subjects.by_layer;
        r->result.planned_bytes = options->ram ? t.subjects.planned_bytes : 0;
        r->result.seconds = tms_seconds() - start;
        r->result.n_questions = t.n;
        r->result.answers = t.answers;
        r->log_p = t.log_p;
        t.answers = NULL;
        t.log_p = NULL;
        *out = &r->result;
        r = NULL;
    }
    tms_subjects_close(&t.subjects);
    free(r);
    free(t.answers);
    free(t.log_p);
    free(t.choices);
    free(t.ids);
    return status;
}

void tms_tasks_free(struct tms_tasks_result *result)
{
    struct owned_result *r = (struct owned_result *)(void *)result;
    if (!r) return;
    free(r->result.answers);
    free(r->log_p);
    free(r);
}
