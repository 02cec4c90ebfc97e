// A CUDA runtime, cuBLAS and cuDNN (its v7 calls) that launch nothing and count what torch asks of a GPU: what needs the headers' types.
#define _GNU_SOURCE
#include "counts.h"
#include "cuda_runtime_api.h"
#include "cudnn.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
typedef cudaError_t E;

Counts c HIDDEN;
int capturing HIDDEN;
static E invalid; // what was called in a capture that none permits
static cudaStream_t captured;
int waits(void *stream) { return !capturing || (stream && stream != captured) ? 0 : (invalid = cudaErrorStreamCaptureUnsupported); }
EX void nullcuda_get(Counts *o) { *o = c; }
EX void nullcuda_reset(void) {
  long cur = c.cur_bytes;
  c = (Counts){.cur_bytes = cur, .peak_bytes = cur};
}
EX void nullcuda_launch(void) { // for the driver's own launches
  if (capturing)
    c.nodes++;
  else
    c.kernels++, spin();
}
static long setting(const char *name, double otherwise) {
  const char *given = getenv(name);
  return (long)((given ? atof(given) : otherwise));
}
static long ndev(void) { return setting("NULLCUDA_DEVICES", 1); }
// a busy wait a launch in ns, to stand for a real driver's part of it
void spin(void) {
  static long launch_ns = -1;
  if (launch_ns < 0)
    launch_ns = setting("NULLCUDA_LAUNCH_NS", 0);
  if (!launch_ns)
    return;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  do
    clock_gettime(CLOCK_MONOTONIC, &b);
  while ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec < launch_ns);
}

// ---- devices ----
static __thread int dev = 0;
EX E cudaGetDeviceCount(int *n) { return *n = ndev(), 0; }
EX E cudaGetDevice(int *d) { return *d = dev, 0; }
EX E cudaSetDevice(int d) {
  if (d < 0 || d >= ndev())
    return cudaErrorInvalidDevice;
  dev = d;
  return 0;
}
EX E cudaDriverGetVersion(int *v) { return *v = CUDART_VERSION, 0; }
EX E cudaRuntimeGetVersion(int *v) { return *v = CUDART_VERSION, 0; }
EX E cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  *p = (struct cudaDeviceProp){.name = "NULL H100", .totalGlobalMem = 80UL << 30, .sharedMemPerBlock = 49152, .regsPerBlock = 65536,
    .warpSize = 32, .maxThreadsPerBlock = 1024, .maxThreadsDim = {1024, 1024, 64}, .maxGridSize = {2147483647, 65535, 65535}, .major = 9,
    .multiProcessorCount = 132, .maxThreadsPerMultiProcessor = 2048, .sharedMemPerMultiprocessor = 233472, .regsPerMultiprocessor = 65536,
    .l2CacheSize = 50 << 20, .sharedMemPerBlockOptin = 232448, .unifiedAddressing = 1, .concurrentKernels = 1, .textureAlignment = 512,
    .maxBlocksPerMultiProcessor = 32};
  return 0;
}
EX E cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
  switch (a) {
  case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
  case cudaDevAttrMultiProcessorCount: *v = 132; break;
  case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
  case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
  case cudaDevAttrWarpSize: *v = 32; break;
  case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
  default: *v = 0;
  }
  return 0;
}
EX E cudaDeviceGetPCIBusId(char *s, int n, int d) { return snprintf(s, n, "0000:0%d:00.0", d), 0; }
EX E cudaDeviceGetStreamPriorityRange(int *a, int *b) {
  if (a)
    *a = 0;
  if (b)
    *b = -5;
  return 0;
}
EX E cudaDeviceCanAccessPeer(int *a, int b, int d) { return *a = 1, 0; }

// ---- memory: pages that nothing computes; a header page holds each block's length ----
static E grab(void **p, size_t n) {
  size_t m = n ? (n + 4095) & ~4095UL : 4096;
  char *q = mmap(0, m + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (q == MAP_FAILED)
    return cudaErrorMemoryAllocation;
  *(size_t *)q = m;
  *p = q + 4096;
  return 0;
}
static size_t length(void *p) { return *(size_t *)((char *)p - 4096); }
static void drop(void *p) { munmap((char *)p - 4096, length(p) + 4096); }
static long cap(void) { return setting("NULLCUDA_MEMORY_GB", 80) * (1L << 30); }
EX E cudaMalloc(void **p, size_t n) {
  if (c.cur_bytes + (long)n > cap() || grab(p, n))
    return cudaErrorMemoryAllocation;
  c.malloc_++;
  c.malloc_bytes += n;
  c.cur_bytes += length(*p);
  if (c.cur_bytes > c.peak_bytes)
    c.peak_bytes = c.cur_bytes;
  return 0;
}
EX E cudaFree(void *p) {
  if (p) {
    c.cur_bytes -= length(p);
    drop(p);
  }
  return 0;
}
EX E cudaMemGetInfo(size_t *f, size_t *t) { return *t = cap(), *f = cap() - c.cur_bytes, 0; }
#define PINNED 65536
static char *pinned[PINNED];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void swap_pinned(char *from, char *to) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < PINNED; i++)
    if (pinned[i] == from) {
      pinned[i] = to;
      break;
    }
  pthread_mutex_unlock(&lock);
}
EX E cudaHostAlloc(void **p, size_t n, unsigned f) {
  if (grab(p, n))
    return cudaErrorMemoryAllocation;
  c.hostalloc++;
  c.hostalloc_bytes += n;
  swap_pinned(0, *p);
  return 0;
}
EX E cudaFreeHost(void *p) {
  if (p) {
    swap_pinned(p, 0);
    drop(p);
  }
  return 0;
}
EX E cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  *a = (struct cudaPointerAttributes){.type = cudaMemoryTypeDevice, .device = dev, .devicePointer = (void *)p};
  for (int i = 0; i < PINNED && pinned[i]; i++)
    if ((char *)p >= pinned[i] && (char *)p < pinned[i] + length(pinned[i]))
      *a = (struct cudaPointerAttributes){.type = cudaMemoryTypeHost, .hostPointer = (void *)p};
  return 0;
}
static int reads; // whether what was uploaded can be read back
EX void nullcuda_reads(int on) { reads = on; }
static E copy(void *d, const void *s, size_t n, enum cudaMemcpyKind k) {
  if (capturing && k != cudaMemcpyDeviceToDevice) // stricter than CUDA, which takes what lies in pinned memory, and the same for ever
    return invalid = cudaErrorStreamCaptureUnsupported;
  if (capturing) {
    c.nodes++;
    return 0;
  }
  if (k == cudaMemcpyHostToDevice) {
    c.h2d++;
    c.h2d_bytes += n;
    if (n < (1 << 20)) // larger ones would be the card's work
      memcpy(d, s, n);
  } else if (k == cudaMemcpyDeviceToHost) {
    c.d2h++;
    c.d2h_bytes += n;
    if (reads)
      memcpy(d, s, n);
    else
      memset(d, 0, n); // nothing was computed: what is read is 0, and so finite
  } else
    c.d2d++;
  return 0;
}
EX E cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind k) {
  c.sync++;
  return copy(d, s, n, k);
}
EX E cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind k, cudaStream_t st) {
  if (!capturing)
    spin();
  return copy(d, s, n, k);
}
EX E cudaGetSymbolAddress(void **p, const void *s) { return grab(p, 4096); }

// ---- events, streams, graphs ----
EX E cudaEventCreate(cudaEvent_t *e) { return *e = malloc(8), 0; }
EX E cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { return *e = malloc(8), 0; }
EX E cudaEventDestroy(cudaEvent_t e) { return free(e), 0; }
EX E cudaEventElapsedTime(float *t, cudaEvent_t a, cudaEvent_t b) { return *t = 1, 0; }
EX E cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { return *s = malloc(8), 0; }
EX E cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { return *s = malloc(8), 0; }
EX E cudaStreamGetPriority(cudaStream_t s, int *p) { return *p = 0, 0; }
EX E cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void *u, unsigned fl) { return f(s, 0, u), 0; }
EX E cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *u) { return f(u), 0; }
EX E cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) { return invalid = 0, captured = s, capturing = 1, 0; }
EX E cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
  capturing = 0, *g = invalid ? 0 : malloc(8);
  return invalid ? cudaErrorStreamCaptureInvalidated : 0;
}
EX E cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *st) { return *st = capturing, 0; }
EX E cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *st, unsigned long long *id, cudaGraph_t *g,
                              const cudaGraphNode_t **d, const cudaGraphEdgeData **e, size_t *n) {
  *st = capturing;
  if (id)
    *id = capturing;
  return 0;
}
EX E cudaGraphInstantiateWithFlags(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long f) { return *x = malloc(8), 0; }
EX E cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *n) { return *n = 1, 0; }
EX E cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
  *a = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024, .numRegs = 32, .binaryVersion = 90, .ptxVersion = 90};
  return 0;
}
EX E cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned fl) {
  return *n = 2048 / (b ? b : 1), 0;
}
EX E __cudaGetKernel(cudaKernel_t *k, const void *f) { return *k = (cudaKernel_t)f, 0; }

// ---- cuDNN ----
EX cudnnStatus_t cudnnCreate(cudnnHandle_t *h) {
  *h = malloc(64);
  return 0;
}
EX cudnnStatus_t cudnnDestroy(cudnnHandle_t h) { return 0; }
EX cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) { return 0; }
EX cudnnStatus_t cudnnGetStream(cudnnHandle_t h, cudaStream_t *s) {
  *s = 0;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
                                                        const cudnnConvolutionDescriptor_t cd, const cudnnTensorDescriptor_t y, const int n,
                                                        int *r, cudnnConvolutionFwdAlgoPerf_t *p) {
  memset(p, 0, sizeof *p);
  p->algo = 1;
  p->status = 0;
  p->memory = 0;
  p->determinism = 1;
  p->mathType = CUDNN_FMA_MATH;
  *r = 1;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t h, const cudnnFilterDescriptor_t w,
                                                             const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t cd,
                                                             const cudnnTensorDescriptor_t dx, const int n, int *r,
                                                             cudnnConvolutionBwdDataAlgoPerf_t *p) {
  memset(p, 0, sizeof *p);
  p->algo = 1;
  p->determinism = 1;
  p->mathType = CUDNN_FMA_MATH;
  *r = 1;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t h, const cudnnTensorDescriptor_t x,
                                                               const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t cd,
                                                               const cudnnFilterDescriptor_t dw, const int n, int *r,
                                                               cudnnConvolutionBwdFilterAlgoPerf_t *p) {
  memset(p, 0, sizeof *p);
  p->algo = 1;
  p->determinism = 1;
  p->mathType = CUDNN_FMA_MATH;
  *r = 1;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t h, const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
                                                         const cudnnConvolutionDescriptor_t cd, const cudnnTensorDescriptor_t y,
                                                         cudnnConvolutionFwdAlgo_t a, size_t *n) {
  *n = 0;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t h, const cudnnFilterDescriptor_t w,
                                                              const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t cd,
                                                              const cudnnTensorDescriptor_t dx, cudnnConvolutionBwdDataAlgo_t a,
                                                              size_t *n) {
  *n = 0;
  return 0;
}
EX cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t h, const cudnnTensorDescriptor_t x,
                                                                const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t cd,
                                                                const cudnnFilterDescriptor_t dw, cudnnConvolutionBwdFilterAlgo_t a,
                                                                size_t *n) {
  *n = 0;
  return 0;
}
EX cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o,
                                                                          const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t z,
                                                                          const cudnnTensorDescriptor_t y, const cudnnTensorDescriptor_t b,
                                                                          const cudnnActivationDescriptor_t a, size_t *n) {
  *n = 0;
  return 0;
}
EX cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o,
                                                                      const cudnnActivationDescriptor_t a, const cudnnTensorDescriptor_t x,
                                                                      size_t *n) {
  *n = 64;
  return 0;
}
EX cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o,
                                                                   const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t y,
                                                                   const cudnnTensorDescriptor_t dy, const cudnnTensorDescriptor_t dz,
                                                                   const cudnnTensorDescriptor_t dx, const cudnnTensorDescriptor_t b,
                                                                   const cudnnActivationDescriptor_t a, size_t *n) {
  *n = 0;
  return 0;
}
