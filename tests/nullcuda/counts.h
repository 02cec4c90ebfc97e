// What the null runtime counts, in the order of NAMES in nullcuda.py.
#pragma once
#define EX __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
typedef struct {
  long kernels, gemms, convs, bns, h2d, d2h, d2d, memset_, h2d_bytes, d2h_bytes, sync, event_sync, malloc_, malloc_bytes, cur_bytes,
      peak_bytes, hostalloc, hostalloc_bytes, nccl, graphs, nodes;
} Counts;
extern Counts c HIDDEN;
void spin(void) HIDDEN;
extern int capturing HIDDEN;
int waits(void *stream) HIDDEN; // 0, or the error of a wait for a stream that is captured
// A call whose arguments do not matter: no prototype, so that the headers of cuDNN and NCCL are not needed.
#define COUNTED(name, what)                                                                                                                \
  EX int name() {                                                                                                                          \
    if (capturing)                                                                                                                         \
      c.nodes++;                                                                                                                           \
    else                                                                                                                                   \
      c.what++, spin();                                                                                                                    \
    return 0;                                                                                                                              \
  }
