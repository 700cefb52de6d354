// The runtime's calls; see cuda_runtime.h.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#include "cuda_runtime.h"
#include "device_memory.hpp"
#include "emulator.hpp"
#include "runtime.hpp"
#include "stream.hpp"

using namespace relprop::emulator;

namespace {

constexpr size_t shared_limit = 48 * 1024;
constexpr unsigned block_limit = 1024, block_limit_z = 64;
constexpr std::align_val_t alignment{256};

thread_local cudaError_t last_error = cudaSuccess;
thread_local int device_of_thread = 0;
thread_local bool has_context = false;

int get_current_context(void **context) {
    *context = has_context ? &has_context : nullptr;
    return 0;
}

struct Model {
    const char *name;
    int major, minor;
    size_t shared_limit_asked;
};

constexpr Model models[] = {
    {"hopper", 9, 0, 227 * 1024}, {"ampere", 8, 0, 163 * 1024}, {"turing", 7, 5, 64 * 1024}};

// The GPU that is emulated: the first, unless RELPROP_EMULATED_MODEL names another, or none.
const Model *model() {
    const char *wanted = std::getenv("RELPROP_EMULATED_MODEL");
    if (!wanted)
        return models;
    for (const Model &each : models)
        if (std::strcmp(wanted, each.name) == 0)
            return &each;
    if (std::strcmp(wanted, "none") != 0)
        fail("RELPROP_EMULATED_MODEL must be hopper, ampere, turing or none");
    return nullptr;
}

size_t memory_of_a_device() {
    const char *wanted = std::getenv("RELPROP_EMULATED_MEMORY");
    return wanted ? static_cast<size_t>(std::strtoull(wanted, nullptr, 10)) : size_t{4} << 30;
}

// Who owns which memory.
struct Registry {
    std::mutex mutex;
    DeviceMemory memory[devices] = {DeviceMemory(memory_of_a_device()),
                                    DeviceMemory(memory_of_a_device())};
    std::map<uintptr_t, size_t> pinned; // sizes by beginnings

    // The device that a pointer belongs to, -1 for none.
    int owner(const void *pointer) const {
        for (int i = 0; i < devices; ++i)
            if (memory[i].room(pointer) > 0)
                return i;
        return -1;
    }

    // The bytes from a pointer to the end of its pinned memory, 0 where it points into none.
    size_t pinned_room(const void *pointer) const {
        const auto at = reinterpret_cast<uintptr_t>(pointer);
        const auto next = pinned.upper_bound(at);
        if (next == pinned.begin())
            return 0;
        const auto &[begin, size] = *std::prev(next);
        return at - begin < size ? size - (at - begin) : 0;
    }
};

Registry &registry() {
    static Registry &only = *new Registry; // outlives whoever releases memory at exit
    return only;
}

enum class Side { host, device, either };

// Whether `bytes` from here lie in one allocation, or in memory of the host that is none of ours.
bool reaches(const void *pointer, size_t bytes, Side side) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    const int owner = all.owner(pointer);
    if (!pointer || (side != Side::either && (owner >= 0) != (side == Side::device)))
        return false;
    const size_t room = owner >= 0 ? all.memory[owner].room(pointer) : all.pinned_room(pointer);
    return bytes <= room || (owner < 0 && room == 0);
}

// Whether the pointer is to memory that was allocated here, on a device or pinned.
bool is_kept(const void *pointer) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return all.owner(pointer) >= 0 || all.pinned_room(pointer) > 0;
}

int device_count() { return model() ? devices : 0; }

bool is_device(int device) { return device >= 0 && device < device_count(); }

} // namespace

// ---- errors

cudaError_t relprop::emulator::result(cudaError_t status) {
    if (status != cudaSuccess)
        last_error = status;
    return status;
}

cudaError_t relprop::emulator::require(bool good, cudaError_t otherwise) {
    return result(good ? cudaSuccess : otherwise);
}

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
    case cudaErrorIllegalState:
        return "cudaErrorIllegalState";
    case cudaErrorSymbolNotFound:
        return "cudaErrorSymbolNotFound";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureWrongThread:
        return "cudaErrorStreamCaptureWrongThread";
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
    case cudaErrorIllegalState:
        return "the operation cannot be performed in the present state";
    case cudaErrorSymbolNotFound:
        return "named symbol not found";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureWrongThread:
        return "attempt to terminate a thread-local capture sequence from another thread";
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

int relprop::emulator::current_device() { return device_of_thread; }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return require(*count > 0, cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device) {
    *device = device_of_thread;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (!is_device(device))
        return result(cudaErrorInvalidDevice);
    device_of_thread = device;
    has_context = true;
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **entry, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *) {
    const bool known = std::strcmp(symbol, "cuCtxGetCurrent") == 0;
    *entry = known ? reinterpret_cast<void *>(get_current_context) : nullptr;
    return require(known, cudaErrorSymbolNotFound);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (!is_device(device))
        return result(cudaErrorInvalidDevice);
    *properties = {.name = "emulator",
                   .totalGlobalMem = memory_of_a_device(),
                   .sharedMemPerBlock = shared_limit,
                   .sharedMemPerBlockOptin = model()->shared_limit_asked,
                   .major = model()->major,
                   .minor = model()->minor,
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

cudaError_t cudaDeviceSynchronize() {
    if (spoil_captures(Captures::of_this_device))
        return result(cudaErrorStreamCaptureUnsupported);
    finish_all();
    return cudaSuccess;
}

// ---- memory

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    if (!memory)
        return result(cudaErrorInvalidValue);
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    has_context = true;
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    *memory = bytes > 0 ? all.memory[current_device()].allocate(bytes) : nullptr;
    return require(*memory || bytes == 0, cudaErrorMemoryAllocation);
}

// Whoever still uses what is released is done with it first, as in CUDA.
cudaError_t cudaFree(void *memory) {
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    finish_all();
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    const int owner = all.owner(memory);
    return require(!memory || (owner >= 0 && all.memory[owner].release(memory)),
                   cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
    if (!memory)
        return result(cudaErrorInvalidValue);
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    *memory = bytes > 0 ? ::operator new(bytes, alignment, std::nothrow) : nullptr;
    if (!*memory)
        return require(bytes == 0, cudaErrorMemoryAllocation);
    std::memset(*memory, 0xFF, bytes);
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    all.pinned[reinterpret_cast<uintptr_t>(*memory)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    finish_all();
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (memory && all.pinned.erase(reinterpret_cast<uintptr_t>(memory)) == 0)
        return result(cudaErrorInvalidValue);
    ::operator delete(memory, alignment);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    *total = all.memory[current_device()].size();
    *free = *total - all.memory[current_device()].used();
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    void *at = const_cast<void *>(pointer);
    if (const int owner = all.owner(pointer); owner >= 0)
        *attributes = {cudaMemoryTypeDevice, owner, at, nullptr};
    else if (all.pinned_room(pointer) > 0)
        *attributes = {cudaMemoryTypeHost, 0, at, at};
    else
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, at};
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (!is_stream(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (bytes == 0)
        return cudaSuccess;
    Side of_to = Side::either, of_from = Side::either;
    switch (kind) {
    case cudaMemcpyHostToHost:
        of_to = of_from = Side::host;
        break;
    case cudaMemcpyHostToDevice:
        of_to = Side::device, of_from = Side::host;
        break;
    case cudaMemcpyDeviceToHost:
        of_to = Side::host, of_from = Side::device;
        break;
    case cudaMemcpyDeviceToDevice:
        of_to = of_from = Side::device;
        break;
    case cudaMemcpyDefault:
        break;
    default:
        return result(cudaErrorInvalidMemcpyDirection);
    }
    if (!reaches(to, bytes, of_to) || !reaches(from, bytes, of_from))
        return result(cudaErrorInvalidValue);
    // What lies elsewhere when the graph is launched nobody knows; CUDA may let it pass.
    const bool kept = is_kept(to) && is_kept(from);
    if (!kept && spoil_capture(stream))
        return result(cudaErrorStreamCaptureUnsupported);
    give(stream, [=] {
        const bool there = is_kept(to) && is_kept(from);
        if (there != kept || !reaches(to, bytes, of_to) || !reaches(from, bytes, of_from))
            fail("a graph copies from or to memory that was released");
        const Access access;
        std::memmove(to, from, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    finish(nullptr);
    return status;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (!is_stream(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (bytes > 0 && !reaches(to, bytes, Side::device))
        return result(cudaErrorInvalidValue);
    give(stream, [=] {
        const Access access;
        std::memset(to, value, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

// ---- kernels

namespace relprop::emulator {

cudaError_t set_attribute(cudaFuncAttribute attribute, int value) {
    const bool too_much = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize &&
                          value > static_cast<int>(model()->shared_limit_asked);
    return require(value >= 0 && !too_much, cudaErrorInvalidValue);
}

bool may_launch(const dim3 &grid, const dim3 &block, size_t shared_bytes, cudaStream_t stream) {
    if (!is_here(stream)) {
        last_error = cudaErrorInvalidResourceHandle;
        return false;
    }
    const bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
    const bool fits = grid.x <= INT32_MAX && grid.y <= UINT16_MAX && grid.z <= UINT16_MAX &&
                      block.x <= block_limit && block.y <= block_limit &&
                      block.z <= block_limit_z && block.x * block.y * block.z <= block_limit;
    if (!some || !fits)
        last_error = cudaErrorInvalidConfiguration;
    else if (shared_bytes > model()->shared_limit_asked)
        last_error = cudaErrorInvalidValue;
    else
        return true;
    return false;
}

bool memory_intact() {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    for (const DeviceMemory &memory : all.memory)
        if (!memory.intact())
            return false;
    return true;
}

} // namespace relprop::emulator
