/* The key-value list of a GGUF file. */
#include "support.h"

#include "file/kvs.h"

static void kvs_keep_their_order_and_replace_in_place(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    tms_kvs_set_string(&kvs, "general.architecture", "qwen2");
    tms_kvs_set_u32(&kvs, "a", 1);
    tms_kvs_set_f32(&kvs, "b", 0.5f);
    tms_kvs_set_string(&kvs, "a", "now a string");
    assert_false(kvs.failed);
    assert_int_equal(kvs.n, 3);
    assert_string_equal(kvs.items[1].key, "a");
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "a")), "now a string");
    assert_string_equal(kvs.items[2].key, "b");
    tms_kvs_free(&kvs);
    assert_int_equal(kvs.n, 0);
}

static void kvs_remove_only_the_key_that_was_named(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    tms_kvs_set_u32(&kvs, "a", 1);
    tms_kvs_set_u32(&kvs, "b", 2);
    tms_kvs_set_u32(&kvs, "c", 3);
    tms_kvs_remove(&kvs, "b");
    tms_kvs_remove(&kvs, "not there");
    assert_int_equal(kvs.n, 2);
    assert_null(tms_kvs_find(&kvs, "b"));
    assert_string_equal(kvs.items[1].key, "c");
    tms_kvs_remove(&kvs, "c");
    tms_kvs_remove(&kvs, "a");
    assert_int_equal(kvs.n, 0);
    tms_kvs_free(&kvs);
}

static void kvs_setter_may_be_given_bytes_of_the_value_it_replaces(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    tms_kvs_set_string(&kvs, "a", "hello");
    tms_kvs_set_string(&kvs, "a", tms_kv_as_string(tms_kvs_find(&kvs, "a")) + 1);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&kvs, "a")), "ello");
    tms_kvs_copy(&kvs, &kvs);
    assert_int_equal(kvs.n, 1);
    tms_kvs_free(&kvs);
}

static void kvs_integers_of_every_type_read_as_u64(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    uint64_t v;
    static const uint8_t bytes[8] = {0x87, 0x65, 0x43, 0x21, 0, 0, 0, 0x80};
    static const struct {
        enum tms_kv_type type;
        bool fine;
        uint64_t value;
    } cases[] = {
        {TMS_KV_U8, true, 0x87},    {TMS_KV_I8, false, 0},          {TMS_KV_U16, true, 0x6587},
        {TMS_KV_I16, true, 0x6587}, {TMS_KV_U32, true, 0x21436587}, {TMS_KV_I32, true, 0x21436587},
        {TMS_KV_F32, false, 0},     {TMS_KV_BOOL, true, 1},         {TMS_KV_U64, true, UINT64_C(0x8000000021436587)},
        {TMS_KV_I64, false, 0},     {TMS_KV_F64, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tms_kvs_set(&kvs, "x", cases[i].type, bytes, tms_kv_type_bytes(cases[i].type));
        v = 99;
        assert_int_equal(tms_kv_as_u64(tms_kvs_find(&kvs, "x"), &v), cases[i].fine);
        assert_true(v == (cases[i].fine ? cases[i].value : 99));
    }
    tms_kvs_set_string(&kvs, "x", "7");
    assert_false(tms_kv_as_u64(tms_kvs_find(&kvs, "x"), &v));
    assert_false(tms_kv_as_u64(NULL, &v));
    tms_kvs_free(&kvs);
}

static void kvs_numbers_of_every_type_read_as_f64(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    double v = 0;
    tms_kvs_set_i32(&kvs, "x", -5);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == -5);
    tms_kvs_set_f32(&kvs, "x", 0.25f);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == 0.25);
    static const uint8_t f64[8] = {0, 0, 0, 0, 0, 0, 0xf8, 0xbf};
    tms_kvs_set(&kvs, "x", TMS_KV_F64, f64, 8);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == -1.5);
    static const uint8_t minus[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    tms_kvs_set(&kvs, "x", TMS_KV_I64, minus, 8);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == -1);
    tms_kvs_set(&kvs, "x", TMS_KV_U64, minus, 8);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == 18446744073709551616.0);
    tms_kvs_set_u16(&kvs, "x", 65535);
    assert_true(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v) && v == 65535);
    tms_kvs_set_array(&kvs, "x", TMS_KV_U8, 1, minus, 1);
    assert_false(tms_kv_as_f64(tms_kvs_find(&kvs, "x"), &v));
    assert_false(tms_kv_as_f64(NULL, &v));
    assert_null(tms_kv_as_string(NULL));
    tms_kvs_free(&kvs);
}

static void kvs_serialize_as_the_specification_lays_them_out(void **state)
{
    (void)state;
    struct tms_kvs kvs = {0};
    struct tms_buf elements = {0}, got = {0};
    tms_kvs_set_u16(&kvs, "n", 0x0102);
    tms_kvs_set_bool(&kvs, "b", true);
    tms_kvs_set_string(&kvs, "s", "xy");
    tms_kv_put_string(&elements, "a", 1);
    tms_kv_put_string(&elements, "", 0);
    tms_kvs_set_array(&kvs, "t", TMS_KV_STRING, 2, elements.data, elements.n);
    tms_kvs_serialize(&kvs, &got);
    static const char want[] = "\1\0\0\0\0\0\0\0n"
                               "\2\0\0\0"
                               "\2\1"
                               "\1\0\0\0\0\0\0\0b"
                               "\7\0\0\0"
                               "\1"
                               "\1\0\0\0\0\0\0\0s"
                               "\10\0\0\0"
                               "\2\0\0\0\0\0\0\0xy"
                               "\1\0\0\0\0\0\0\0t"
                               "\11\0\0\0"
                               "\10\0\0\0"
                               "\2\0\0\0\0\0\0\0"
                               "\1\0\0\0\0\0\0\0a"
                               "\0\0\0\0\0\0\0\0";
    assert_int_equal(got.n, sizeof want - 1);
    assert_same_bytes(got.data, want, got.n, "serialized keys");
    tms_buf_free(&got);
    tms_buf_free(&elements);
    tms_kvs_free(&kvs);
}

static void kvs_copy_owns_its_values(void **state)
{
    (void)state;
    struct tms_kvs from = {0}, to = {0};
    tms_kvs_set_string(&from, "a", "x");
    tms_kvs_set_array(&from, "empty", TMS_KV_I32, 0, NULL, 0);
    tms_kvs_set_u32(&to, "a", 1);
    tms_kvs_copy(&to, &from);
    tms_kvs_free(&from);
    assert_int_equal(to.n, 2);
    assert_string_equal(tms_kv_as_string(tms_kvs_find(&to, "a")), "x");
    assert_int_equal(tms_kvs_find(&to, "empty")->n_bytes, 0);
    from.failed = true;
    tms_kvs_copy(&to, &from);
    assert_true(to.failed);
    tms_kvs_free(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvs_keep_their_order_and_replace_in_place),
        cmocka_unit_test(kvs_remove_only_the_key_that_was_named),
        cmocka_unit_test(kvs_setter_may_be_given_bytes_of_the_value_it_replaces),
        cmocka_unit_test(kvs_integers_of_every_type_read_as_u64),
        cmocka_unit_test(kvs_numbers_of_every_type_read_as_f64),
        cmocka_unit_test(kvs_serialize_as_the_specification_lays_them_out),
        cmocka_unit_test(kvs_copy_owns_its_values),
    };
    return cmocka_run_group_tests_name("kvs", tests, NULL, NULL);
}
