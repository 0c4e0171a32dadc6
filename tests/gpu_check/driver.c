// The driver of GPUs that are not there, in the place of libcuda.so.1: it has no context, and every call succeeds.
#define CALL(name) int name() { return 0; }
CALL(cuCtxGetCurrent) CALL(cuCtxSetCurrent) CALL(cuDeviceGet) CALL(cuDeviceGetAttribute) CALL(cuDevicePrimaryCtxRetain)
CALL(cuFuncGetAttribute) CALL(cuFuncSetAttribute) CALL(cuFuncSetCacheConfig) CALL(cuGetErrorString) CALL(cuInit)
CALL(cuLaunchCooperativeKernel) CALL(cuLaunchKernel) CALL(cuLinkAddData_v2) CALL(cuLinkComplete) CALL(cuLinkCreate_v2)
CALL(cuModuleGetFunction) CALL(cuModuleLoad) CALL(cuModuleLoadData) CALL(cuModuleLoadDataEx) CALL(cuModuleUnload)
CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor) CALL(cuPointerGetAttribute) CALL(cuTensorMapEncodeTiled)
CALL(cuGetProcAddress_v2)
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 0; return 0; }
