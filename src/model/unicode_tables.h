/* The tables behind unicode.h, generated; all are sorted by their first column. */
#ifndef TMS_MODEL_UNICODE_TABLES_H
#define TMS_MODEL_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct tms_code_range {
    uint32_t first, last;
};

struct tms_code_class {
    const char *name; /* "L", …, "Han"; "space", "digit", "word"; NULL ends the list */
    const struct tms_code_range *ranges;
    size_t n;
};
extern const struct tms_code_class tms_code_classes[];

struct tms_code_triple {
    uint32_t a, b, c;
};
extern const struct tms_code_triple tms_combining_classes[]; /* first, last, class */
extern const size_t tms_combining_classes_n;
extern const struct tms_code_triple tms_decompositions[]; /* code, first, second (0: none); one step */
extern const size_t tms_decompositions_n;
extern const struct tms_code_triple tms_compositions[]; /* first, second, code */
extern const size_t tms_compositions_n;

#endif
