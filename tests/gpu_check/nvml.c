// NVML of GPUs that are not there, in the place of libnvidia-ml.so.1: torch counts devices by it without CUDA, which no
// later fork would survive.
#include <stdlib.h>
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { char *s = getenv("PRETENDED_GPUS"); *n = s ? atoi(s) : 1; return 0; }
