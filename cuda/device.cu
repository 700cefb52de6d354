// Memory, copies and streams of NVIDIA's GPUs: CUDA's value of Device.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop::cuda {
namespace {

constexpr int least_major = 8; // of the compute capability: what cuda/ is compiled for

int device_count() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorNoDevice)
        return 0;
    if (status != cudaSuccess)
        throw CudaError("no NVIDIA driver is there, or none that works: " +
                        std::string(cudaGetErrorString(status)) + ".");
    return count;
}

void require(int index) {
    const int count = device_count();
    if (index < 0 || index >= count)
        throw CudaError("there is no GPU " + std::to_string(index) + ": this machine has " +
                        std::to_string(count) + ".");
    int major = 0, minor = 0;
    RELPROP_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    RELPROP_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
    if (major < least_major)
        throw CudaError("GPU " + std::to_string(index) + " has compute capability " +
                        std::to_string(major) + "." + std::to_string(minor) +
                        "; relprop needs 8.0 (Ampere) or newer.");
}

// Whether this thread works with a GPU already. The runtime does not tell: it calls the first one
// current where there is none, and to name that would take up memory there.
bool has_context() {
    using GetCurrent = int (*)(void **context);
    static const auto get_current = [] {
        constexpr unsigned version = 12000; // of the driver's interface
        void *found = nullptr;
        RELPROP_CHECK(cudaGetDriverEntryPointByVersion("cuCtxGetCurrent", &found, version,
                                                       cudaEnableDefault, nullptr));
        return reinterpret_cast<GetCurrent>(found);
    }();
    void *context = nullptr;
    return get_current && get_current(&context) == 0 && context;
}

int use(int index) {
    int before = -1;
    if (has_context())
        RELPROP_CHECK(cudaGetDevice(&before));
    if (before == index)
        return -1;
    RELPROP_CHECK(cudaSetDevice(index));
    return before;
}

// Called by destructors, perhaps after an error that stays.
void use_again(int before) { cudaSetDevice(before); }

int64_t free_bytes() {
    size_t free = 0, total = 0;
    RELPROP_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
}

// Throws where there was no room for so many bytes of memory; nothing is kept of the error.
void require_room(cudaError_t status, int64_t bytes, const char *whose) {
    if (status != cudaErrorMemoryAllocation)
        return;
    cudaGetLastError();
    throw DeviceOutOfMemory(std::string(whose) + " has no room for " + std::to_string(bytes) +
                            " bytes; " + std::to_string(free_bytes()) + " are free on the GPU.");
}

void *allocate(int64_t bytes) {
    void *memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
    require_room(status, bytes, "the GPU");
    RELPROP_CHECK(status);
    return memory;
}

// Called by destructors, which may run when the driver is gone already.
void release(void *memory) { cudaFree(memory); }

void *allocate_pinned(int64_t bytes) {
    void *memory = nullptr;
    const cudaError_t status =
        cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable);
    require_room(status, bytes, "the host's pinned memory");
    RELPROP_CHECK(status);
    return memory;
}

void release_pinned(void *memory) { cudaFreeHost(memory); }

// It does not wait for the default stream, nor the default stream for it.
Stream make_stream() {
    cudaStream_t stream = nullptr;
    RELPROP_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

void end_stream(Stream stream) { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }

void copy(void *to, const void *from, int64_t bytes, Stream stream) {
    RELPROP_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault,
                                  static_cast<cudaStream_t>(stream)));
}

void wait(Stream stream) {
    RELPROP_CHECK(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

void *mark(Stream stream) {
    cudaEvent_t event = nullptr;
    RELPROP_CHECK(cudaEventCreate(&event));
    const cudaError_t status = cudaEventRecord(event, static_cast<cudaStream_t>(stream));
    if (status != cudaSuccess)
        cudaEventDestroy(event);
    RELPROP_CHECK(status);
    return event;
}

double seconds_between(void *earlier, void *later) {
    float milliseconds = 0;
    RELPROP_CHECK(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier),
                                       static_cast<cudaEvent_t>(later)));
    return 1e-3 * static_cast<double>(milliseconds);
}

void end_mark(void *mark) { cudaEventDestroy(static_cast<cudaEvent_t>(mark)); }

// Of the calls that CUDA forbids during a capture, other threads may make allocations and the like.
cudaGraph_t capture(cudaStream_t stream, const std::function<void()> &work) {
    cudaGraph_t graph = nullptr;
    RELPROP_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
        work();
    } catch (...) {
        if (cudaStreamEndCapture(stream, &graph) == cudaSuccess)
            cudaGraphDestroy(graph);
        cudaGetLastError(); // of a capture that ended with an error; the next launch must not find
                            // it
        throw;
    }
    RELPROP_CHECK(cudaStreamEndCapture(stream, &graph));
    return graph;
}

void *record(Stream stream, const std::function<void()> &work) {
    const cudaGraph_t graph = capture(static_cast<cudaStream_t>(stream), work);
    cudaGraphExec_t recorded = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&recorded, graph, 0);
    cudaGraphDestroy(graph);
    RELPROP_CHECK(status);
    return recorded;
}

void replay(void *recorded, Stream stream) {
    RELPROP_CHECK(
        cudaGraphLaunch(static_cast<cudaGraphExec_t>(recorded), static_cast<cudaStream_t>(stream)));
}

void end_recorded(void *recorded) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recorded)); }

int owner(const void *pointer) {
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    return attributes.type == cudaMemoryTypeDevice ? attributes.device : -1;
}

} // namespace

const Device device = {
    .require = require,
    .use = use,
    .use_again = use_again,
    .allocate = allocate,
    .release = release,
    .allocate_pinned = allocate_pinned,
    .release_pinned = release_pinned,
    .free_bytes = free_bytes,
    .make_stream = make_stream,
    .end_stream = end_stream,
    .copy = copy,
    .wait = wait,
    .mark = mark,
    .seconds_between = seconds_between,
    .end_mark = end_mark,
    .record = record,
    .replay = replay,
    .end_recorded = end_recorded,
    .owner = owner,
};

} // namespace relprop::cuda
