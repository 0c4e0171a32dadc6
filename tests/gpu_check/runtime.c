// The CUDA runtime of GPUs that are not there: device memory is the host's, streams and events do nothing, a kernel ends
// the process. Stands before torch's own libcudart (LD_PRELOAD). PRETENDED_GPUS says how many devices there are.
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread int current;

static cudaError_t aligned(void **p, size_t n) { return posix_memalign(p, 512, n ? n : 512) ? cudaErrorMemoryAllocation : 0; }
static cudaError_t handle(void **h) { *h = calloc(1, 64); return 0; }

cudaError_t cudaGetDeviceCount(int *n) { char *s = getenv("PRETENDED_GPUS"); *n = s ? atoi(s) : 1; return 0; }
cudaError_t cudaGetDevice(int *d) { *d = current; return 0; }
cudaError_t cudaSetDevice(int d) { current = d; return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {  // an H100's
  memset(p, 0, sizeof *p);
  strcpy(p->name, "pretended GPU");
  p->major = 9;
  p->totalGlobalMem = 80ul << 30;
  p->multiProcessorCount = 132;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerBlock = 48 << 10;
  p->sharedMemPerBlockOptin = 227 << 10;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  return 0;
}

cudaError_t cudaMalloc(void **p, size_t n) { return aligned(p, n); }
cudaError_t cudaFree(void *p) { free(p); return 0; }

// Page-locked memory, which is asked about by its address.
static struct pinned { char *start; size_t size; struct pinned *next; } *all_pinned;
static pthread_mutex_t of_pinned = PTHREAD_MUTEX_INITIALIZER;

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
  if (aligned(p, n)) return cudaErrorMemoryAllocation;
  struct pinned *one = malloc(sizeof *one);
  pthread_mutex_lock(&of_pinned);
  *one = (struct pinned){*p, n, all_pinned};
  all_pinned = one;
  pthread_mutex_unlock(&of_pinned);
  return 0;
}
cudaError_t cudaFreeHost(void *p) {
  pthread_mutex_lock(&of_pinned);
  for (struct pinned *one = all_pinned; one; one = one->next)
    if (one->start == p) one->size = 0;
  pthread_mutex_unlock(&of_pinned);
  free(p);
  return 0;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a);
  pthread_mutex_lock(&of_pinned);
  for (struct pinned *one = all_pinned; one; one = one->next)
    if (one->start <= (char *)p && (char *)p < one->start + one->size) a->type = cudaMemoryTypeHost;
  pthread_mutex_unlock(&of_pinned);
  return 0;
}

cudaError_t cudaMemGetInfo(size_t *free_, size_t *all) { *free_ = *all = 80ul << 30; return 0; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) { memmove(to, from, n); return 0; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k, cudaStream_t s) { memmove(to, from, n); return 0; }
cudaError_t cudaMemset(void *to, int v, size_t n) { memset(to, v, n); return 0; }
cudaError_t cudaMemsetAsync(void *to, int v, size_t n, cudaStream_t s) { memset(to, v, n); return 0; }

cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = 0; *high = -5; return 0; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { return handle((void **)s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { return handle((void **)s); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return 0; }
cudaError_t cudaStreamGetPriority(cudaStream_t s, int *p) { *p = 0; return 0; }
cudaError_t cudaStreamQuery(cudaStream_t s) { return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return 0; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { return 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = cudaStreamCaptureStatusNone; return 0; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) { return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { return handle((void **)e); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { return handle((void **)e); }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return 0; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { return 0; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { free(e); return 0; }
cudaError_t cudaEventQuery(cudaEvent_t e) { return 0; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return 0; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; return 0; }
cudaError_t cudaDeviceSynchronize(void) { return 0; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int d, int peer) { *can = 0; return 0; }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) { *v = 0; return 0; }
cudaError_t cudaDriverGetVersion(int *v) { *v = CUDART_VERSION; return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = CUDART_VERSION; return 0; }
cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaPeekAtLastError(void) { return 0; }

// A kernel cannot run. By a name that CUDA's headers do not declare, new compilers call the second.
static cudaError_t launched(void) {
  fprintf(stderr, "a CUDA kernel was launched past tests/gpu_check/device.py, which has to take its operator\n");
  abort();
}
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t n, cudaStream_t s) { return launched(); }
cudaError_t __cudaLaunchKernel(void *f, dim3 grid, dim3 block, void **args, size_t n, cudaStream_t s) { return launched(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **args) { return launched(); }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 grid, dim3 block, void **args, size_t n, cudaStream_t s) { return launched(); }
