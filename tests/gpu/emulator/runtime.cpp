// The runtime's calls; see cuda_runtime.h.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>

#include "cuda_runtime.h"

struct CUstream_st {
    int device;
};

struct CUevent_st {
    std::chrono::steady_clock::time_point at{};
    bool recorded = false;
};

namespace {

constexpr int devices = 2; // so that the second is tested
constexpr size_t shared_limit = 48 * 1024, shared_limit_asked = 163 * 1024;
constexpr unsigned block_limit = 1024, block_limit_z = 64;
constexpr std::align_val_t alignment{256};

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

cudaError_t result(cudaError_t status) {
    if (status != cudaSuccess)
        last_error = status;
    return status;
}

struct Allocation {
    size_t size;
    cudaMemoryType type;
    int device;
};

// Who owns which memory, and which streams and events there are.
struct Registry {
    std::mutex mutex;
    std::map<uintptr_t, Allocation> allocations;
    std::set<cudaStream_t> streams;
    std::set<cudaEvent_t> events;
    size_t used[devices] = {};
    const size_t memory = [] {
        const char *wanted = std::getenv("RELPROP_EMULATED_MEMORY");
        return wanted ? static_cast<size_t>(std::strtoull(wanted, nullptr, 10)) : size_t{4} << 30;
    }();

    // The allocation that a pointer points into, or the end.
    std::map<uintptr_t, Allocation>::iterator find(const void *pointer) {
        const auto at = reinterpret_cast<uintptr_t>(pointer);
        const auto next = allocations.upper_bound(at);
        if (next == allocations.begin())
            return allocations.end();
        const auto it = std::prev(next);
        return at - it->first < it->second.size ? it : allocations.end();
    }
};

Registry &registry() {
    static Registry &only = *new Registry; // outlives whoever releases memory at exit
    return only;
}

cudaError_t allocate(void **memory, size_t bytes, cudaMemoryType type) {
    if (!memory)
        return result(cudaErrorInvalidValue);
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    size_t &used = all.used[current_device];
    if (type == cudaMemoryTypeDevice && bytes > all.memory - used)
        return result(cudaErrorMemoryAllocation);
    *memory = ::operator new(bytes, alignment, std::nothrow);
    if (!*memory)
        return result(cudaErrorMemoryAllocation);
    std::memset(*memory, 0xFF, bytes);
    all.allocations[reinterpret_cast<uintptr_t>(*memory)] = {bytes, type, current_device};
    if (type == cudaMemoryTypeDevice)
        used += bytes;
    return cudaSuccess;
}

cudaError_t release(void *memory, cudaMemoryType type) {
    if (!memory)
        return cudaSuccess;
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    const auto it = all.allocations.find(reinterpret_cast<uintptr_t>(memory));
    if (it == all.allocations.end() || it->second.type != type)
        return result(cudaErrorInvalidValue);
    if (type == cudaMemoryTypeDevice)
        all.used[it->second.device] -= it->second.size;
    std::memset(memory, 0xFF, it->second.size); // for those who still read it
    all.allocations.erase(it);
    ::operator delete(memory, alignment);
    return cudaSuccess;
}

enum class Side { host, device, either };

// Whether `bytes` from here lie in one allocation, or in memory of the host that is none of ours.
bool reaches(const void *pointer, size_t bytes, Side side) {
    if (!pointer)
        return false;
    Registry &all = registry();
    const auto it = all.find(pointer);
    const bool ours = it != all.allocations.end();
    const bool on_device = ours && it->second.type == cudaMemoryTypeDevice;
    if (side != Side::either && on_device != (side == Side::device))
        return false;
    return !ours || bytes <= it->first + it->second.size - reinterpret_cast<uintptr_t>(pointer);
}

bool known(cudaStream_t stream) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return !stream || all.streams.count(stream);
}

bool known(cudaEvent_t event) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return all.events.count(event);
}

cudaError_t require(bool good, cudaError_t otherwise) {
    return result(good ? cudaSuccess : otherwise);
}

bool is_device(int device) { return device >= 0 && device < devices; }

} // namespace

// ---- errors

const char *cudaGetErrorName(cudaError_t status) {
    switch (status) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
        return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    }
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t status) {
    switch (status) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidMemcpyDirection:
        return "invalid copy direction for memcpy";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorNotReady:
        return "device not ready";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError() {
    const cudaError_t status = last_error;
    last_error = cudaSuccess;
    return status;
}

cudaError_t cudaPeekAtLastError() { return last_error; }

// ---- devices

cudaError_t cudaGetDeviceCount(int *count) {
    *count = devices;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (!is_device(device))
        return result(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (!is_device(device))
        return result(cudaErrorInvalidDevice);
    *properties = {.name = "emulator",
                   .totalGlobalMem = registry().memory,
                   .sharedMemPerBlock = shared_limit,
                   .sharedMemPerBlockOptin = shared_limit_asked,
                   .major = 8,
                   .minor = 0,
                   .multiProcessorCount = 4, // few, so that grids are larger
                   .maxThreadsPerBlock = block_limit,
                   .warpSize = warpSize,
                   .l2CacheSize = 4 << 20};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp p;
    if (const cudaError_t status = cudaGetDeviceProperties(&p, device))
        return status;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = static_cast<int>(p.sharedMemPerBlock);
        return cudaSuccess;
    case cudaDevAttrWarpSize:
        *value = p.warpSize;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrL2CacheSize:
        *value = p.l2CacheSize;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = static_cast<int>(p.sharedMemPerBlockOptin);
        return cudaSuccess;
    }
    return result(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

// ---- memory

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    return allocate(memory, bytes, cudaMemoryTypeDevice);
}

cudaError_t cudaFree(void *memory) { return release(memory, cudaMemoryTypeDevice); }

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
    return allocate(memory, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaFreeHost(void *memory) { return release(memory, cudaMemoryTypeHost); }

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    *free = all.memory - all.used[current_device];
    *total = all.memory;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    void *at = const_cast<void *>(pointer);
    const auto it = all.find(pointer);
    if (it == all.allocations.end())
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, at};
    else if (it->second.type == cudaMemoryTypeHost)
        *attributes = {cudaMemoryTypeHost, it->second.device, at, at};
    else
        *attributes = {cudaMemoryTypeDevice, it->second.device, at, nullptr};
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (!known(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (bytes == 0)
        return cudaSuccess;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return result(cudaErrorInvalidMemcpyDirection);
    const bool any = kind == cudaMemcpyDefault;
    const bool up = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool down = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (!reaches(to, bytes,
                 any  ? Side::either
                 : up ? Side::device
                      : Side::host) ||
        !reaches(from, bytes,
                 any    ? Side::either
                 : down ? Side::device
                        : Side::host))
        return result(cudaErrorInvalidValue);
    std::memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (!known(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (bytes == 0)
        return cudaSuccess;
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (!reaches(to, bytes, Side::device))
        return result(cudaErrorInvalidValue);
    std::memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    *stream = new CUstream_st{current_device};
    all.streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, 0); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (all.streams.erase(stream) == 0)
        return result(cudaErrorInvalidResourceHandle);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return require(known(stream), cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    return require(known(stream) && known(event), cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    *event = new CUevent_st;
    all.events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (all.events.erase(event) == 0)
        return result(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (!known(event) || !known(stream))
        return result(cudaErrorInvalidResourceHandle);
    *event = {std::chrono::steady_clock::now(), true};
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return require(known(event), cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!known(from) || !known(to) || !from->recorded || !to->recorded)
        return result(cudaErrorInvalidResourceHandle);
    *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return cudaSuccess;
}

// ---- kernels

namespace relprop::emulator {

cudaError_t set_attribute(cudaFuncAttribute attribute, int value) {
    const bool too_much = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize &&
                          value > static_cast<int>(shared_limit_asked);
    return require(value >= 0 && !too_much, cudaErrorInvalidValue);
}

bool may_launch(const dim3 &grid, const dim3 &block, size_t shared_bytes, cudaStream_t stream) {
    if (!known(stream) || (stream && stream->device != current_device)) {
        last_error = cudaErrorInvalidResourceHandle;
        return false;
    }
    const bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
    const bool fits = grid.x <= INT32_MAX && grid.y <= UINT16_MAX && grid.z <= UINT16_MAX &&
                      block.x <= block_limit && block.y <= block_limit &&
                      block.z <= block_limit_z && block.x * block.y * block.z <= block_limit;
    if (!some || !fits)
        last_error = cudaErrorInvalidConfiguration;
    else if (shared_bytes > shared_limit_asked)
        last_error = cudaErrorInvalidValue;
    else
        return true;
    return false;
}

} // namespace relprop::emulator
