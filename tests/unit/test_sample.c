/* Sampling: each step of the chain against small cases computed by hand, and its properties on random logits. */
#include "support.h"

#include <math.h>

#include "engine/sample.h"
#include "engine/stops.h"

static struct tms_error err;

static struct tms_sampler *sampler(struct tms_sampling sampling, size_t n_vocab)
{
    struct tms_sampler *s = NULL;
    assert_ok(tms_sampler_create(&s, &sampling, n_vocab, &err), err);
    return s;
}

/* Checks ids and, where given, probabilities of what would be drawn from. */
static void assert_candidates(struct tms_sampling sampling, const float *logits, size_t n_vocab, const int32_t *ids,
                              const double *probabilities, size_t n)
{
    struct tms_sampler *s = sampler(sampling, n_vocab);
    const struct tms_candidate *got;
    size_t n_got;
    assert_ok(tms_sampler_candidates(s, logits, &got, &n_got, &err), err);
    assert_int_equal(n_got, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got[i].id, ids[i]);
        if (probabilities && fabs(got[i].probability - probabilities[i]) > 1e-12)
            fail_msg("candidate %zu: probability %.15g, want %.15g", i, got[i].probability, probabilities[i]);
    }
    tms_sampler_free(s);
}

/* Probabilities 0.1, 0.4, 0.2, 0.3. */
static const float four[] = {-2.3025851f, -0.91629073f, -1.6094379f, -1.2039728f};

static void all_candidates_are_kept_in_order_when_nothing_cuts(void **state)
{
    (void)state;
    const int32_t ids[] = {1, 3, 2, 0};
    double p[4], sum = 0;
    for (int i = 0; i < 4; i++) sum += exp(four[i]);
    for (int i = 0; i < 4; i++) p[i] = exp(four[ids[i]]) / sum;
    assert_candidates((struct tms_sampling){.temperature = 1}, four, 4, ids, p, 4);
}

static void top_k_keeps_the_k_best_and_renormalizes(void **state)
{
    (void)state;
    const float logits[] = {0, 0, 0, 0, 1, 0};
    const int32_t ids[] = {4, 0, 1};
    const double e = exp(1), p[] = {e / (e + 2), 1 / (e + 2), 1 / (e + 2)};
    assert_candidates((struct tms_sampling){.temperature = 1, .top_k = 3}, logits, 6, ids, p, 3);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_k = 100}, four, 4, (int32_t[]){1, 3, 2, 0}, NULL, 4);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    (void)state;
    const int32_t ids[] = {1, 3, 2, 0};
    assert_candidates((struct tms_sampling){.temperature = 1, .top_p = 0.39}, four, 4, ids, NULL, 1);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_p = 0.41}, four, 4, ids, NULL, 2);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_p = 0.71}, four, 4, ids, NULL, 3);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_p = 0.91}, four, 4, ids, NULL, 4);
}

static void top_p_counts_probabilities_after_top_k(void **state)
{
    (void)state;
    /* of {0.4, 0.3} the first has 0.571 */
    assert_candidates((struct tms_sampling){.temperature = 1, .top_k = 2, .top_p = 0.56}, four, 4, (int32_t[]){1}, NULL,
                      1);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_k = 2, .top_p = 0.58}, four, 4, (int32_t[]){1, 3},
                      NULL, 2);
}

static void min_p_is_measured_by_the_best(void **state)
{
    (void)state;
    /* shares of the best: 1, 0.75, 0.5, 0.25 */
    assert_candidates((struct tms_sampling){.temperature = 1, .min_p = 0.76}, four, 4, (int32_t[]){1}, NULL, 1);
    assert_candidates((struct tms_sampling){.temperature = 1, .min_p = 0.51}, four, 4, (int32_t[]){1, 3}, NULL, 2);
    assert_candidates((struct tms_sampling){.temperature = 1, .min_p = 0.2}, four, 4, (int32_t[]){1, 3, 2, 0}, NULL, 4);
}

static void temperature_comes_after_the_cuts(void **state)
{
    (void)state;
    const float logits[] = {2, 0, 1};
    const double e = exp(0.5), p[] = {e / (e + 1), 1 / (e + 1)}; /* 2/2 and 1/2 */
    /* at temperature 1 the best two have 0.91; at 2 it would take all three to reach 0.9 */
    assert_candidates((struct tms_sampling){.temperature = 2, .top_p = 0.9}, logits, 3, (int32_t[]){0, 2}, p, 2);
}

static void temperature_zero_takes_the_best_with_the_lowest_id(void **state)
{
    (void)state;
    const float logits[] = {-1, 3, 3, 2};
    assert_candidates((struct tms_sampling){.temperature = 0, .top_k = 40, .seed = 9}, logits, 4, (int32_t[]){1},
                      (double[]){1}, 1);
}

static void equal_logits_stand_in_the_order_of_ids(void **state)
{
    (void)state;
    float logits[100];
    int32_t ids[100];
    for (int i = 0; i < 100; i++) {
        logits[i] = 0.5f;
        ids[i] = i;
    }
    assert_candidates((struct tms_sampling){.temperature = 1, .top_k = 7}, logits, 100, ids, NULL, 7);
    assert_candidates((struct tms_sampling){.temperature = 1, .top_p = 0.305}, logits, 100, ids, NULL, 31);
    assert_candidates((struct tms_sampling){.temperature = 1}, logits, 100, ids, NULL, 100);
}

static void repetition_penalty_moves_recent_tokens_away_once(void **state)
{
    (void)state;
    const float logits[] = {2, -1, 1.5f, 0};
    const struct tms_candidate *c;
    size_t n;
    struct tms_sampler *s =
        sampler((struct tms_sampling){.temperature = 1, .repeat_penalty = 2, .repeat_last_n = 3}, 4);
    tms_sampler_accept(s, 3); /* falls out of the last three */
    tms_sampler_accept(s, 0);
    tms_sampler_accept(s, 0);
    tms_sampler_accept(s, 1);
    assert_ok(tms_sampler_candidates(s, logits, &c, &n, &err), err);
    assert_int_equal(n, 4);
    const struct {
        int32_t id;
        float logit;
    } want[] = {{2, 1.5f}, {0, 1}, {3, 0}, {1, -2}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c[i].id, want[i].id);
        assert_true(c[i].logit == want[i].logit);
    }
    tms_sampler_free(s);
}

static void draws_are_those_of_the_documented_generator(void **state)
{
    (void)state;
    const float logits[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; /* ten equal ones: the id is floor(10 u) */
    uint64_t seed = 42;
    struct tms_sampler *s = sampler((struct tms_sampling){.temperature = 1, .seed = seed}, 10);
    for (int i = 0; i < 1000; i++) {
        int32_t id = -1;
        double u = (double)(next_random(&seed) >> 11) / 9007199254740992.0;
        assert_ok(tms_sampler_pick(s, logits, &id, &err), err);
        assert_int_equal(id, (int)(10 * u));
    }
    tms_sampler_free(s);
}

static void draws_have_the_frequencies_of_their_probabilities(void **state)
{
    (void)state;
    int counts[4] = {0};
    const double want[] = {0.1, 0.4, 0.2, 0.3};
    struct tms_sampler *s = sampler((struct tms_sampling){.temperature = 1, .top_k = 4, .seed = 7}, 4);
    for (int i = 0; i < 100000; i++) {
        int32_t id = 0;
        assert_ok(tms_sampler_pick(s, four, &id, &err), err);
        counts[id]++;
    }
    for (int i = 0; i < 4; i++) /* five standard deviations */
        if (fabs(counts[i] / 1e5 - want[i]) > 5 * sqrt(want[i] * (1 - want[i]) / 1e5))
            fail_msg("token %d was drawn %d times", i, counts[i]);
    tms_sampler_free(s);
}

static void the_same_seed_gives_the_same_tokens(void **state)
{
    (void)state;
    enum { VOCAB = 5000 };
    static float logits[VOCAB];
    uint64_t seed = 1;
    struct tms_sampling sampling = tms_sampling_usual;
    sampling.seed = 123;
    struct tms_sampler *a = sampler(sampling, VOCAB), *b = sampler(sampling, VOCAB);
    for (int round = 0; round < 50; round++) {
        int32_t x = -1, y = -2;
        for (int i = 0; i < VOCAB; i++) logits[i] = 3 * random_normal(&seed);
        assert_ok(tms_sampler_pick(a, logits, &x, &err), err);
        assert_ok(tms_sampler_pick(b, logits, &y, &err), err);
        assert_int_equal(x, y);
    }
    tms_sampler_free(a);
    tms_sampler_free(b);
}

/* The same by sorting everything, in the words of the definition. */
static size_t kept_by_sorting(const struct tms_sampling *o, const float *logits, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && logits[ids[at - 1]] < logits[i]; at--) ids[at] = ids[at - 1];
        ids[at] = (int32_t)i;
    }
    size_t kept = o->top_k && o->top_k < n ? o->top_k : n, reached = 0;
    double mass = 0, sum = 0;
    for (size_t i = 0; i < kept; i++) mass += exp((double)logits[ids[i]]);
    while (reached < kept && (reached == 0 || sum < o->top_p * mass)) sum += exp((double)logits[ids[reached++]]);
    kept = reached;
    while (kept > 1 && exp((double)logits[ids[kept - 1]] - logits[ids[0]]) < o->min_p) kept--;
    return kept;
}

static void random_logits_are_cut_as_sorting_would(void **state)
{
    (void)state;
    enum { VOCAB = 600 };
    static float logits[VOCAB];
    static int32_t ids[VOCAB];
    uint64_t seed = 5;
    for (int round = 0; round < 300; round++) {
        struct tms_sampling o = {.temperature = 0.3 + round % 7 * 0.3,
                                 .top_k = (uint64_t[]){0, 1, 5, 40, 599, 600, 1000}[next_random(&seed) % 7],
                                 .top_p = (double[]){1, 0.1, 0.5, 0.95, 0.9999}[next_random(&seed) % 5],
                                 .min_p = (double[]){0, 0.01, 0.05, 0.5, 1}[next_random(&seed) % 5]};
        double spread = (double[]){0.1, 1, 5}[next_random(&seed) % 3], sum = 0;
        for (int i = 0; i < VOCAB; i++) /* some of them equal */
            logits[i] = (float)(round % 2 ? rint(spread * random_normal(&seed)) : spread * random_normal(&seed));
        struct tms_sampler *s = sampler(o, VOCAB);
        const struct tms_candidate *c;
        size_t n, want = kept_by_sorting(&o, logits, VOCAB, ids);
        assert_ok(tms_sampler_candidates(s, logits, &c, &n, &err), err);
        if (n != want)
            fail_msg("round %d: top-k %d, top-p %g, min-p %g: %zu kept, want %zu", round, (int)o.top_k, o.top_p,
                     o.min_p, n, want);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(c[i].id, ids[i]);
            assert_true(c[i].probability >= 0 && (i == 0 || c[i].probability <= c[i - 1].probability));
            sum += c[i].probability;
        }
        assert_true(fabs(sum - 1) < 1e-12);
        int32_t id = -1;
        assert_ok(tms_sampler_pick(s, logits, &id, &err), err);
        bool found = false;
        for (size_t i = 0; i < n; i++) found |= ids[i] == id;
        assert_true(found);
        tms_sampler_free(s);
    }
}

static void forbidden_tokens_are_never_drawn(void **state)
{
    (void)state;
    const float logits[] = {-INFINITY, 0, -INFINITY, -200};
    struct tms_sampler *s = sampler((struct tms_sampling){.temperature = 5, .seed = 3}, 4);
    for (int i = 0; i < 100; i++) {
        int32_t id = -1;
        assert_ok(tms_sampler_pick(s, logits, &id, &err), err);
        assert_int_equal(id, 1);
    }
    tms_sampler_free(s);
}

static void logits_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    float logits[] = {0, 1, NAN, 0};
    int32_t id = 77;
    struct tms_sampler *s = sampler(tms_sampling_usual, 4), *greedy = sampler((struct tms_sampling){0}, 4);
    assert_int_equal(tms_sampler_pick(s, logits, &id, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "the logit of token 2 is NaN"));
    assert_int_equal(tms_sampler_pick(greedy, logits, &id, &err), TMS_EINPUT);
    logits[2] = INFINITY;
    assert_int_equal(tms_sampler_pick(s, logits, &id, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "infinite"));
    for (int i = 0; i < 4; i++) logits[i] = -INFINITY;
    assert_int_equal(tms_sampler_pick(s, logits, &id, &err), TMS_EINPUT);
    assert_non_null(strstr(err.message, "no token is possible"));
    assert_int_equal(id, 77);
    tms_sampler_free(s);
    tms_sampler_free(greedy);
}

static void settings_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const struct tms_sampling bad[] = {{.temperature = -1},    {.temperature = NAN},
                                       {.top_p = 1.5},         {.top_p = -0.1},
                                       {.min_p = 2},           {.min_p = NAN},
                                       {.repeat_penalty = -1}, {.repeat_penalty = 2, .repeat_last_n = UINT64_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tms_sampler *s = NULL;
        assert_int_equal(tms_sampler_create(&s, &bad[i], 4, &err), TMS_EUSAGE);
        assert_null(s);
    }
}

/* ---- stop texts ------------------------------------------------------------------------------------------------- */

/* Feeds `pieces` one by one and returns what was shown, with '|' after each piece, '!' where it ended. */
static const char *shown(const char *const *stops, size_t n_stops, const char *const *pieces, size_t n)
{
    static char text[256];
    struct tms_stops s;
    struct tms_buf out = {0};
    size_t which = 99;
    bool found = false;
    assert_ok(tms_stops_init(&s, stops, n_stops, &err), err);
    for (size_t i = 0; i < n && !found; i++) {
        found = tms_stops_push(&s, pieces[i], strlen(pieces[i]), &out, &which);
        tms_buf_text(&out, found ? "!" : "|");
    }
    if (!found) tms_stops_finish(&s, &out);
    snprintf(text, sizeof text, "%.*s", (int)out.n, (const char *)out.data);
    assert_true(found ? which < n_stops : which == 99);
    tms_stops_free(&s);
    tms_buf_free(&out);
    return text;
}

#define SHOWN(stops, ...)                                                                                              \
    shown(stops, sizeof(stops) / sizeof *(stops), (const char *const[]){__VA_ARGS__},                                  \
          sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void stop_texts_are_never_half_shown(void **state)
{
    (void)state;
    const char *const user[] = {"\nUser:"}, *const two[] = {"END", "###"}, *const aab[] = {"aab"};
    assert_string_equal(SHOWN(user, "Hello\nUser: hi"), "Hello!");
    assert_string_equal(SHOWN(user, "Hello", "\n", "Us", "er", ": hi"), "Hello||||!");
    assert_string_equal(SHOWN(user, "Hello\n", "Use it"), "Hello|\nUse it|");
    assert_string_equal(SHOWN(user, "Hello\nUse"), "Hello|\nUse");
    assert_string_equal(SHOWN(two, "a#", "#b", "EN", "D"), "a|##b||!");
    assert_string_equal(SHOWN(aab, "a", "a", "a", "a", "b", "c"), "||a|a|!");
    assert_string_equal(SHOWN(two, "END"), "!");
}

static void stop_texts_hold_back_whole_characters(void **state)
{
    (void)state;
    const char *const euro[] = {"\xe2\x82\xac!"}; /* a euro sign and '!' */
    assert_string_equal(SHOWN(euro, "5 \xe2\x82\xac", "?"), "5 |\xe2\x82\xac?|");
    assert_string_equal(SHOWN(euro, "5 \xe2\x82\xac", "!"), "5 |!");
}

static void bad_stop_texts_are_refused(void **state)
{
    (void)state;
    struct tms_stops s;
    assert_int_equal(tms_stops_init(&s, (const char *const[]){"a", ""}, 2, &err), TMS_EUSAGE);
    assert_int_equal(tms_stops_init(&s, (const char *const[]){"\xac"}, 1, &err), TMS_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_candidates_are_kept_in_order_when_nothing_cuts),
        cmocka_unit_test(top_k_keeps_the_k_best_and_renormalizes),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(top_p_counts_probabilities_after_top_k),
        cmocka_unit_test(min_p_is_measured_by_the_best),
        cmocka_unit_test(temperature_comes_after_the_cuts),
        cmocka_unit_test(temperature_zero_takes_the_best_with_the_lowest_id),
        cmocka_unit_test(equal_logits_stand_in_the_order_of_ids),
        cmocka_unit_test(repetition_penalty_moves_recent_tokens_away_once),
        cmocka_unit_test(draws_are_those_of_the_documented_generator),
        cmocka_unit_test(draws_have_the_frequencies_of_their_probabilities),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens),
        cmocka_unit_test(random_logits_are_cut_as_sorting_would),
        cmocka_unit_test(forbidden_tokens_are_never_drawn),
        cmocka_unit_test(logits_that_are_no_numbers_are_refused),
        cmocka_unit_test(settings_that_make_no_sense_are_refused),
        cmocka_unit_test(stop_texts_are_never_half_shown),
        cmocka_unit_test(stop_texts_hold_back_whole_characters),
        cmocka_unit_test(bad_stop_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
