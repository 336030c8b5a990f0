/* How much memory the process holds, for work that keeps to a limit. */
#ifndef TMS_BASE_RESIDENT_H
#define TMS_BASE_RESIDENT_H

#include <stdint.h>

/* Bytes of memory that this process holds now; 0 if the system does not tell. */
uint64_t tms_resident_bytes(void);
/* From now on what is freed goes back to the system: layers come and go, and glibc would keep them. */
void tms_give_memory_back(void);

#endif
