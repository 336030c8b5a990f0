/* How tamis reports what went wrong.
 *
 * Every function that can fail returns a tms_status and, if it was given a struct tms_error, fills in one
 * line: what failed, where (file, tensor, offset), what to do. Out-parameters stay untouched on failure. */
#ifndef TAMIS_ERROR_H
#define TAMIS_ERROR_H

/* The values up to 4 are also the exit codes of the command line. */
typedef enum tms_status {
    TMS_OK = 0,
    TMS_EUSAGE = 1,     /* the call itself makes no sense */
    TMS_EINPUT = 2,     /* the input is invalid or not supported */
    TMS_EIO = 3,        /* reading, writing or allocating failed */
    TMS_ECHECK = 4,     /* a check, verification or quality gate did not hold */
    TMS_ECANCELLED = 5, /* tms_cancel was called while the work was going on */
} tms_status;

struct tms_error {
    char message[1024]; /* one line, UTF-8, no control characters, NUL-terminated */
};

#endif
