/* Single safetensors files. */
#include "corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whole files that are something else, or not even a header. */
static const struct {
    const char *path;
    const char *bytes;
    size_t n;
    const char *fragment;
} others[] = {
#define OTHER(path, bytes, fragment)                                                                                   \
    {                                                                                                                  \
        path, bytes, sizeof bytes - 1, fragment                                                                        \
    }
    OTHER("st/empty.safetensors", "", "it has 0 bytes"),
    OTHER("st/seven-bytes.safetensors", "\2\0\0\0\0\0\0", "it has 7 bytes"),
    OTHER("st/lfs-pointer.safetensors",
          "version https://git-lfs.github.com/spec/v1\n"
          "oid sha256:0000000000000000000000000000000000000000000000000000000000000000\nsize 4976698672\n",
          "git lfs pull"),
    OTHER("st/html.safetensors", "<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "HTML page"),
    OTHER("st/zip.safetensors", "PK\003\004\024\000\010\010\010\000\000\000\000\000archive/data.pkl", "zip archive"),
    OTHER("st/pickle.safetensors", "\200\002ccollections\nOrderedDict\nq\000)Rq\001.", "Python pickle"),
    OTHER("st/error-text.safetensors", "{\"error\": \"Access to this repository is restricted.\"}", "JSON text"),
    OTHER("st/gguf.safetensors", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "it is a GGUF file"),
    OTHER("st/huge-header.safetensors", "\0\0\0\0\0\0\0\200{}", "9223372036854775808 bytes, the format allows"),
    OTHER("st/header-over-limit.safetensors", "\1\341\365\5\0\0\0\0{}", "100000001 bytes"),
    OTHER("st/header-past-end.safetensors", "\100\0\0\0\0\0\0\0{}", "64 bytes, the file has only 10"),
    OTHER("st/header-without-brace.safetensors", "\4\0\0\0\0\0\0\0  {}", "does not begin with '{'"),
    OTHER("st/header-not-utf8.safetensors", "\10\0\0\0\0\0\0\0{\"\xff\":{}}", "not valid JSON"),
#undef OTHER
};

/* Headers with so many bytes of data behind them. */
static const struct {
    const char *path;
    const char *header;
    size_t data_bytes;
    const char *fragment;
} headers[] = {
    {"st/json-cut.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],", 1, "not valid JSON"},
    {"st/json-comma.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},}", 1,
     "not valid JSON"},
    {"st/json-behind.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}]", 1, "header"},
    {"st/name-twice.safetensors",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2, "duplicate"},
    {"st/name-with-nul.safetensors", "{\"a\\u0000\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "NUL"},
    {"st/name-half-surrogate.safetensors", "{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "not valid JSON"},
    {"st/entry-no-object.safetensors", "{\"a\":[0,1]}", 1, "is not an object"},
    {"st/no-dtype.safetensors", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "has no dtype"},
    {"st/unknown-dtype.safetensors", "{\"a\":{\"dtype\":\"F128\",\"shape\":[1],\"data_offsets\":[0,16]}}", 16,
     "'F128'"},
    {"st/no-shape.safetensors", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "has no shape"},
    {"st/negative-shape.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1,
     "dimension 0"},
    {"st/fractional-shape.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2,0.5],\"data_offsets\":[0,1]}}", 1,
     "dimension 1"},
    {"st/nine-dimensions.safetensors",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "9 dimensions"},
    {"st/shape-overflow.safetensors",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "product of its shape overflows"},
    {"st/size-overflow.safetensors",
     "{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0, "size of F64"},
    {"st/half-byte.safetensors", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "whole bytes"},
    {"st/no-offsets.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
    {"st/offsets-backwards.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1,
     "end before they begin"},
    {"st/offsets-against-shape.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,8]}}", 8,
     "do not match F32 [2, 2]"},
    {"st/hole.safetensors",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
     3, "hole"},
    {"st/overlap.safetensors",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     3, "inside tensor 'a'"},
    {"st/data-cut.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 15, "cut short"},
    {"st/data-behind.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 20,
     "belong to no tensor"},
    {"st/metadata-no-object.safetensors", "{\"__metadata__\":\"pt\"}", 0, "__metadata__ is not an object"},
    {"st/metadata-number.safetensors", "{\"__metadata__\":{\"format\":1}}", 0, "'format' is not a string"},
    {"st/metadata-nul.safetensors", "{\"__metadata__\":{\"format\":\"p\\u0000t\"}}", 0, "holds a NUL"},
};

/* 3000 arrays in one another: deeper than any parser should follow. */
static void deep(void)
{
    struct tms_buf header = {0};
    tms_buf_text(&header, "{\"a\":");
    for (int i = 0; i < 3000; i++) tms_buf_text(&header, "[");
    for (int i = 0; i < 3000; i++) tms_buf_text(&header, "]");
    tms_buf_text(&header, "}");
    tms_buf_put(&header, "", 1);
    corpus_write_safetensors("st/deep.safetensors", (const char *)header.data, 0);
    tms_buf_free(&header);
    corpus_refused("st/deep.safetensors", "not valid JSON");
}

void corpus_safetensors(void)
{
    corpus_mkdir("st");
    corpus_write_safetensors("st/good.safetensors",
                             "{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                             "\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[16,18]}}",
                             18);
    corpus_expect("st/good.safetensors", "inspect", 0, "");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        corpus_write(others[i].path, others[i].bytes, others[i].n);
        corpus_refused(others[i].path, others[i].fragment);
    }
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        corpus_write_safetensors(headers[i].path, headers[i].header, headers[i].data_bytes);
        corpus_refused(headers[i].path, headers[i].fragment);
    }
    deep();
}
