// Checks what cuda/device.cu says of itself: what becomes of errors, and marks in a stream. Built
// with RELPROP_GPU_CHECKS; run by test_gpu.py, or by hand on a machine with a GPU, and by
// test_emulator.py where CUDA is emulated.
#include <functional>

#include "backend.cuh"
#include "checks.hpp"
#include "launch.cuh"
#include "memory.hpp"

namespace {

using namespace relprop;

const Kernels &kernels() { return cuda_kernels(0, Precision::float32); }
const Device &device() { return *kernels().device; }

// Whether work throws such an error, and leaves nothing that a later launch could take for its own.
template <class Error> bool throws(const std::function<void()> &work) {
    try {
        work();
        return false;
    } catch (const Error &) {
        return cudaPeekAtLastError() == cudaSuccess;
    }
}

constexpr int64_t too_much = int64_t{1} << 46;

bool errors_are_told_once() {
    return throws<CudaError>([] { RELPROP_CHECK(cudaSetDevice(99)); });
}

bool memory_that_is_not_there_is_told_as_such() {
    return throws<DeviceOutOfMemory>([] { device().release(device().allocate(too_much)); });
}

bool pinned_memory_that_is_not_there_is_told_as_such() {
    return throws<DeviceOutOfMemory>(
        [] { device().release_pinned(device().allocate_pinned(too_much)); });
}

bool marks_tell_how_long_work_takes() {
    const Memory memory(kernels(), 1 << 20);
    const Stream stream = device().make_stream();
    void *const begun = device().mark(stream);
    for (int i = 0; i < 10; ++i)
        kernels().fill(1.0f, memory.data(), memory.floats(), stream);
    void *const done = device().mark(stream), *const at_once = device().mark(stream);
    device().wait(stream);
    const double of_work = device().seconds_between(begun, done);
    const double of_nothing = device().seconds_between(done, at_once);
    for (void *mark : {begun, done, at_once})
        device().end_mark(mark);
    device().end_stream(stream);
    return 0.0 <= of_nothing && of_nothing < of_work;
}

bool marks_that_are_not_reached_have_no_time() {
    const Stream stream = device().make_stream();
    void *const mark = device().mark(stream);
    device().wait(stream);
    cudaEvent_t never;
    RELPROP_CHECK(cudaEventCreate(&never));
    const bool refused = throws<CudaError>([&] { device().seconds_between(mark, never); });
    RELPROP_CHECK(cudaEventDestroy(never));
    device().end_mark(mark);
    device().end_stream(stream);
    return refused;
}

const Check checks[] = {
    {"errors are told once", errors_are_told_once},
    {"memory that is not there is told as such", memory_that_is_not_there_is_told_as_such},
    {"pinned memory that is not there is told as such",
     pinned_memory_that_is_not_there_is_told_as_such},
    {"marks tell how long work takes", marks_tell_how_long_work_takes},
    {"marks that are not reached have no time", marks_that_are_not_reached_have_no_time},
};

} // namespace

int main() { return run(checks); }
