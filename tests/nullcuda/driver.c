// The driver's library (libcuda.so.1), for what Triton and torch load themselves; launches count as the runtime's do.
#include <stdlib.h>
#define EX __attribute__((visibility("default")))
extern void nullcuda_launch(void) __attribute__((weak));
#define NOTHING(name)                                                                                                                      \
  EX int name() { return 0; }
#define LAUNCH(name)                                                                                                                       \
  EX int name() {                                                                                                                          \
    if (nullcuda_launch)                                                                                                                   \
      nullcuda_launch();                                                                                                                   \
    return 0;                                                                                                                              \
  }
#define MADE(name)                                                                                                                         \
  EX int name(void **handle) { return *handle = calloc(1, 64), 0; }
EX int cuDevicePrimaryCtxGetState(int d, unsigned *f, int *a) { return *f = 0, *a = 1, 0; }
EX int cuDeviceGet(int *d, int n) { return *d = n, 0; }
EX int cuCtxGetDevice(int *d) { return *d = 0, 0; }
EX int cuDeviceGetCount(int *n) { return *n = 1, 0; }
EX int cuDriverGetVersion(int *v) { return *v = 13000, 0; }
EX int cuPointerGetAttribute(void **a, int what, void *p) { return *a = p, 0; }
EX int cuGetErrorString(int e, const char **s) { return *s = "null", 0; }
EX int cuDeviceGetAttribute(int *v, int what, int d) { return *v = 232448, 0; }
EX int cuFuncGetAttribute(int *v, int what, void *f) { return *v = what == 0 ? 1024 : 0, 0; }
EX int cuCtxGetLimit(size_t *v, int what) { return *v = 0, 0; }
EX int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n) { return *n = 2, 0; }
EX int cuOccupancyMaxActiveClusters(int *n) { return *n = 1, 0; }
MADE(cuDevicePrimaryCtxRetain) MADE(cuCtxGetCurrent) MADE(cuModuleLoad) MADE(cuModuleLoadData) MADE(cuModuleLoadDataEx)
MADE(cuModuleGetFunction) MADE(cuLinkCreate_v2)
LAUNCH(cuLaunchKernel) LAUNCH(cuLaunchKernelEx) LAUNCH(cuLaunchCooperativeKernel)
NOTHING(cuInit) NOTHING(cuCtxSetCurrent) NOTHING(cuCtxSetLimit) NOTHING(cuFuncSetAttribute) NOTHING(cuFuncSetCacheConfig)
NOTHING(cuLinkAddData_v2) NOTHING(cuLinkComplete) NOTHING(cuLinkDestroy) NOTHING(cuModuleUnload) NOTHING(cuTensorMapEncodeTiled)
NOTHING(cuTensorMapEncodeIm2col) NOTHING(cuCtxSynchronize) NOTHING(cuStreamSynchronize)
