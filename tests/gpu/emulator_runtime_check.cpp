// Checks what the emulator has of CUDA's runtime: memory, launches, events, streams and graphs.
#include <cstdlib>
#include <thread>

#include "emulator_checks.hpp"

using namespace relprop;

namespace {

bool refuses(cudaError_t status, cudaError_t expected) {
    return status == expected && cudaGetLastError() == expected &&
           cudaGetLastError() == cudaSuccess;
}

bool wrong_copies_are_errors() {
    const Floats memory(100);
    std::vector<float> host(200);
    float *at = memory.data();
    return refuses(cudaMemcpy(at, host.data(), 101 * 4, cudaMemcpyDefault),
                   cudaErrorInvalidValue) &&
           refuses(cudaMemcpy(host.data(), at + 99, 8, cudaMemcpyDefault), cudaErrorInvalidValue) &&
           refuses(cudaMemcpy(at, nullptr, 4, cudaMemcpyDefault), cudaErrorInvalidValue) &&
           refuses(cudaMemcpy(host.data(), at, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue) &&
           refuses(cudaMemset(at + 50, 0, 51 * 4), cudaErrorInvalidValue) &&
           refuses(cudaMemset(host.data(), 0, 4), cudaErrorInvalidValue) &&
           cudaMemcpy(host.data(), at + 99, 4, cudaMemcpyDeviceToHost) == cudaSuccess &&
           cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyDefault) == cudaSuccess;
}

bool wrong_releases_are_errors() {
    float *memory = nullptr, *pinned = nullptr;
    RELPROP_CHECK(cudaMalloc(&memory, 400));
    RELPROP_CHECK(cudaHostAlloc(&pinned, 400, cudaHostAllocDefault));
    return refuses(cudaFree(memory + 1), cudaErrorInvalidValue) &&
           refuses(cudaFree(pinned), cudaErrorInvalidValue) &&
           refuses(cudaFreeHost(memory), cudaErrorInvalidValue) &&
           cudaFree(memory) == cudaSuccess && cudaFreeHost(pinned) == cudaSuccess &&
           refuses(cudaFree(memory), cudaErrorInvalidValue) && cudaFree(nullptr) == cudaSuccess;
}

bool owners_are_known() {
    float *memory = nullptr, *pinned = nullptr, own = 0.0f;
    RELPROP_CHECK(cudaSetDevice(1));
    RELPROP_CHECK(cudaMalloc(&memory, 400));
    RELPROP_CHECK(cudaSetDevice(0));
    RELPROP_CHECK(cudaHostAlloc(&pinned, 400, cudaHostAllocDefault));
    cudaPointerAttributes device, host, unregistered, beyond;
    RELPROP_CHECK(cudaPointerGetAttributes(&device, memory + 99));
    RELPROP_CHECK(cudaPointerGetAttributes(&host, pinned));
    RELPROP_CHECK(cudaPointerGetAttributes(&unregistered, &own));
    RELPROP_CHECK(cudaPointerGetAttributes(&beyond, memory + 100));
    RELPROP_CHECK(cudaFree(memory));
    RELPROP_CHECK(cudaFreeHost(pinned));
    return device.type == cudaMemoryTypeDevice && device.device == 1 &&
           host.type == cudaMemoryTypeHost && unregistered.type == cudaMemoryTypeUnregistered &&
           beyond.type == cudaMemoryTypeUnregistered;
}

bool memory_runs_out() {
    size_t before, total, less, after;
    RELPROP_CHECK(cudaMemGetInfo(&before, &total));
    void *memory, *more;
    RELPROP_CHECK(cudaMalloc(&memory, 1000));
    RELPROP_CHECK(cudaMemGetInfo(&less, &total));
    const bool refused = refuses(cudaMalloc(&more, less + 1), cudaErrorMemoryAllocation);
    RELPROP_CHECK(cudaFree(memory));
    RELPROP_CHECK(cudaMemGetInfo(&after, &total));
    const char *wanted = std::getenv("RELPROP_EMULATED_MEMORY");
    return refused && !more && less == before - 1000 && after == before &&
           (!wanted || total == std::strtoull(wanted, nullptr, 10));
}

bool throws(const std::string &what, void (*body)()) {
    try {
        body();
    } catch (const CudaError &error) {
        return std::string(error.what()).find(what) != std::string::npos;
    }
    return false;
}

bool wrong_launches_throw() {
    return throws("too many",
                  [] {
                      RELPROP_LAUNCH_BLOCKS(tree_kernel, none, Grid(1, 65536), threads, 0, nullptr);
                  }) &&
           throws("too many",
                  [] { RELPROP_LAUNCH(twice_kernel, none, int64_t{1} << 40, nullptr); }) &&
           throws("invalid configuration",
                  [] { RELPROP_LAUNCH_BLOCKS(tree_kernel, none, 1, 1025, 0, nullptr); }) &&
           throws(
               "invalid argument",
               [] { RELPROP_LAUNCH_BLOCKS(tree_kernel, none, 1, threads, 228 * 1024, nullptr); }) &&
           throws("invalid resource handle", [] { // a stream of another device
               cudaStream_t stream;
               RELPROP_CHECK(cudaSetDevice(1));
               RELPROP_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
               RELPROP_CHECK(cudaSetDevice(0));
               RELPROP_LAUNCH(twice_kernel, none, 1, stream);
           });
}

bool events_tell_the_time() {
    cudaEvent_t from, to;
    float milliseconds = -1.0f;
    RELPROP_CHECK(cudaEventCreate(&from));
    RELPROP_CHECK(cudaEventCreate(&to));
    const bool early =
        refuses(cudaEventElapsedTime(&milliseconds, from, to), cudaErrorInvalidResourceHandle);
    RELPROP_CHECK(cudaEventRecord(from));
    RELPROP_CHECK(cudaEventRecord(to));
    RELPROP_CHECK(cudaEventSynchronize(to));
    RELPROP_CHECK(cudaEventElapsedTime(&milliseconds, from, to));
    RELPROP_CHECK(cudaEventDestroy(from));
    RELPROP_CHECK(cudaEventDestroy(to));
    return early && milliseconds >= 0.0f &&
           refuses(cudaEventDestroy(to), cudaErrorInvalidResourceHandle);
}

bool work_waits() {
    constexpr int tries = 64;
    const Floats one(std::vector<float>{1.0f}), between(1);
    float *pinned;
    cudaStream_t first, second;
    cudaEvent_t done;
    RELPROP_CHECK(cudaHostAlloc(&pinned, sizeof(float), cudaHostAllocDefault));
    RELPROP_CHECK(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    RELPROP_CHECK(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    RELPROP_CHECK(cudaEventCreate(&done));
    int early = 0, right = 0;
    for (int i = 0; i < tries; ++i) {
        *pinned = 0.0f;
        RELPROP_CHECK(cudaMemsetAsync(between.data(), 0, sizeof(float), first));
        RELPROP_CHECK(
            cudaMemcpyAsync(between.data(), one.data(), sizeof(float), cudaMemcpyDefault, first));
        RELPROP_CHECK(cudaEventRecord(done, first));
        RELPROP_CHECK(cudaStreamWaitEvent(second, done));
        RELPROP_CHECK(
            cudaMemcpyAsync(pinned, between.data(), sizeof(float), cudaMemcpyDefault, second));
        early += *pinned == 1.0f;
        RELPROP_CHECK(cudaStreamSynchronize(second));
        right += *pinned == 1.0f;
    }
    RELPROP_CHECK(cudaEventDestroy(done));
    RELPROP_CHECK(cudaStreamDestroy(first));
    RELPROP_CHECK(cudaStreamDestroy(second));
    RELPROP_CHECK(cudaFreeHost(pinned));
    return right == tries && early > 0 && early < tries;
}

// A stream that captures, until it is destroyed.
class Capturing {
  public:
    Capturing() {
        RELPROP_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        RELPROP_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    }
    ~Capturing() { cudaStreamDestroy(stream); }
    Capturing(const Capturing &) = delete;
    Capturing &operator=(const Capturing &) = delete;

    cudaGraphExec_t graph() const {
        cudaGraph_t captured;
        cudaGraphExec_t ready;
        RELPROP_CHECK(cudaStreamEndCapture(stream, &captured));
        RELPROP_CHECK(cudaGraphInstantiate(&ready, captured));
        RELPROP_CHECK(cudaGraphDestroy(captured));
        return ready;
    }
    cudaStream_t stream = nullptr;
};

// 1, 2, 4, 8: each of three values is twice the one before; the first comes from the host.
bool graphs_do_it_all_in_order_each_time() {
    const int held = relprop_graphs_held(), launches = relprop_graph_launches();
    const Floats memory(std::vector<float>(4, 0.0f));
    float *at = memory.data(), *pinned;
    RELPROP_CHECK(cudaHostAlloc(&pinned, sizeof(float), cudaHostAllocDefault));
    *pinned = 1.0f;
    const Capturing capturing;
    RELPROP_CHECK(cudaMemcpyAsync(at, pinned, sizeof(float), cudaMemcpyDefault, capturing.stream));
    for (int i = 0; i < 3; ++i)
        RELPROP_LAUNCH(twice_kernel, (Arrays{at + i, at + i + 1}), 1, capturing.stream);
    const cudaGraphExec_t graph = capturing.graph();
    RELPROP_CHECK(cudaStreamSynchronize(capturing.stream));
    bool right = memory.read() == std::vector<float>(4, 0.0f);
    for (const float first : {1.0f, 3.0f}) {
        *pinned = first;
        for (const cudaStream_t stream : {capturing.stream, cudaStream_t{}}) {
            RELPROP_CHECK(cudaMemsetAsync(at, 0, 4 * sizeof(float), stream));
            RELPROP_CHECK(cudaGraphLaunch(graph, stream));
            RELPROP_CHECK(cudaStreamSynchronize(stream));
            right = right && memory.read() == std::vector{first, 2 * first, 4 * first, 8 * first};
        }
    }
    RELPROP_CHECK(cudaGraphExecDestroy(graph));
    RELPROP_CHECK(cudaFreeHost(pinned));
    return right && relprop_graph_launches() == launches + 4 && relprop_graphs_held() == held &&
           refuses(cudaGraphLaunch(graph, nullptr), cudaErrorInvalidValue) &&
           refuses(cudaGraphExecDestroy(graph), cudaErrorInvalidValue);
}

// Whether CUDA refuses the call while this thread captures, and the capture with it.
template <class Call> bool spoils(const Call &call) {
    const Capturing capturing;
    cudaGraph_t graph;
    return refuses(call(capturing.stream), cudaErrorStreamCaptureUnsupported) &&
           refuses(cudaStreamEndCapture(capturing.stream, &graph),
                   cudaErrorStreamCaptureInvalidated) &&
           !graph && cudaStreamSynchronize(capturing.stream) == cudaSuccess;
}

bool captures_neither_wait_nor_allocate() {
    const Floats memory(1);
    float *at = memory.data(), own = 0.0f;
    void *more;
    return spoils([](cudaStream_t stream) { return cudaStreamSynchronize(stream); }) &&
           spoils([](cudaStream_t stream) { return cudaStreamQuery(stream); }) &&
           spoils([](cudaStream_t) { return cudaDeviceSynchronize(); }) &&
           spoils([&](cudaStream_t) { return cudaMalloc(&more, 4); }) &&
           spoils([&](cudaStream_t) { return cudaFree(at); }) &&
           spoils([&](cudaStream_t) { return cudaHostAlloc(&more, 4, cudaHostAllocDefault); }) &&
           spoils([](cudaStream_t) { return cudaFreeHost(nullptr); }) &&
           spoils([&](cudaStream_t) { return cudaMemcpy(at, &own, 4, cudaMemcpyDefault); }) &&
           spoils([&](cudaStream_t stream) { // from memory that is not pinned
               return cudaMemcpyAsync(at, &own, 4, cudaMemcpyDefault, stream);
           }) &&
           memory.read().size() == 1;
}

bool captures_leave_other_threads_alone() {
    const Capturing capturing;
    cudaGraph_t graph;
    cudaError_t allocated = cudaErrorInvalidValue, ended = cudaSuccess;
    std::thread([&] {
        void *memory;
        allocated = cudaMalloc(&memory, 4);
        cudaFree(memory);
        ended = cudaStreamEndCapture(capturing.stream, &graph);
    }).join();
    return allocated == cudaSuccess && ended == cudaErrorStreamCaptureWrongThread &&
           cudaStreamEndCapture(capturing.stream, &graph) == cudaSuccess &&
           cudaGraphDestroy(graph) == cudaSuccess &&
           refuses(cudaStreamEndCapture(capturing.stream, &graph), cudaErrorIllegalState) &&
           refuses(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal),
                   cudaErrorStreamCaptureUnsupported);
}

const Check checks[] = {
    {"wrong copies are errors", wrong_copies_are_errors},
    {"wrong releases are errors", wrong_releases_are_errors},
    {"owners are known", owners_are_known},
    {"memory runs out", memory_runs_out},
    {"wrong launches throw", wrong_launches_throw},
    {"events tell the time", events_tell_the_time},
    {"work waits", work_waits},
    {"graphs do it all in order, each time", graphs_do_it_all_in_order_each_time},
    {"captures neither wait nor allocate", captures_neither_wait_nor_allocate},
    {"captures leave other threads alone", captures_leave_other_threads_alone},
};

// A graph outlives the memory that it copies.
void launch_stale_graph() {
    const Floats to(1);
    cudaGraphExec_t graph;
    {
        const Floats from(1);
        const Capturing capturing;
        RELPROP_CHECK(cudaMemcpyAsync(to.data(), from.data(), sizeof(float), cudaMemcpyDefault,
                                      capturing.stream));
        graph = capturing.graph();
    }
    RELPROP_CHECK(cudaGraphLaunch(graph, nullptr));
    RELPROP_CHECK(cudaStreamSynchronize(nullptr));
}

int die(const std::string &name) {
    const Floats memory(1);
    if (name == "stale_graph")
        launch_stale_graph();
    if (name == "host_reads")
        return static_cast<int>(*memory.data());
    return 1;
}

} // namespace

int main(int count, char **arguments) { return run(checks, die, count, arguments); }
