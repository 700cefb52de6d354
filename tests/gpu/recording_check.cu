// Checks recordings of what a stream is given: when they run, what they refuse, how many are kept.
// Built with RELPROP_GPU_CHECKS; run by test_gpu.py, or by hand on a machine with a GPU, and by
// test_emulator.py where CUDA is emulated.
#include <cstdio>
#include <stdexcept>
#include <string>

#include "backend.cuh"
#include "checks.hpp"
#include "launch.cuh"
#include "memory.hpp"
#include "recording.hpp"

namespace {

using namespace relprop;

// A counter in the device's memory, and a stream of one's own.
class Counter {
  public:
    Counter() : one_(kernels_, 1), count_(kernels_, 1), stream(kernels_.device->make_stream()) {
        const float zero = 0.0f, one = 1.0f;
        count_.fill(&zero, sizeof zero);
        one_.fill(&one, sizeof one);
    }
    ~Counter() { kernels_.device->end_stream(stream); }
    Counter(const Counter &) = delete;
    Counter &operator=(const Counter &) = delete;

    const Device &device() const { return *kernels_.device; }
    void rise(Stream on) const { kernels_.carry(one_.data(), 1.0f, count_.data(), 1, true, on); }
    float read() const {
        float value;
        device().copy(&value, count_.data(), sizeof value, stream);
        device().wait(stream);
        return value;
    }

  private:
    const Kernels &kernels_ = cuda_kernels(0, Precision::float32);
    Memory one_, count_;

  public:
    const Stream stream;
};

bool recording_does_nothing_before_it_is_replayed() {
    const Counter counter;
    const Recording twice(counter.device(), counter.stream, [&] {
        counter.rise(counter.stream);
        counter.rise(counter.stream);
    });
    bool right = counter.read() == 0.0f;
    for (const float expected : {2.0f, 4.0f, 6.0f}) {
        twice.replay(counter.stream);
        right = right && counter.read() == expected;
    }
    twice.replay(nullptr); // another stream
    counter.device().wait(nullptr);
    return right && counter.read() == 8.0f;
}

// Whether recording this work fails with such words, and the stream is as good as before.
template <class Work> bool refuses(const std::string &words, const Work &work) {
    const Counter counter;
    try {
        const Recording recording(counter.device(), counter.stream, [&] {
            counter.rise(counter.stream);
            work(counter);
        });
        return false;
    } catch (const std::runtime_error &error) {
        const std::string what = error.what();
        if (what.find("RELPROP_GRAPHS=0") == std::string::npos ||
            what.find(words) == std::string::npos) {
            std::printf("%s\n", error.what());
            return false;
        }
    }
    counter.rise(counter.stream);
    return counter.read() == 1.0f;
}

bool waits_are_refused() {
    return refuses("not permitted when stream is capturing",
                   [](const Counter &of) { of.device().wait(of.stream); });
}

bool allocations_are_refused() {
    return refuses("not permitted when stream is capturing",
                   [](const Counter &of) { of.device().allocate(4); });
}

bool what_work_throws_is_told() {
    return refuses("no such thing",
                   [](const Counter &) { throw std::invalid_argument("no such thing"); });
}

bool default_stream_is_refused() {
    const Counter counter;
    try {
        const Recording recording(counter.device(), nullptr, [] {});
    } catch (const std::runtime_error &) {
        return true;
    }
    return false;
}

// Work runs plainly, then it is recorded, then its recording serves.
bool a_few_recordings_are_kept() {
    const Counter counter;
    Recordings recordings(counter.device());
    int calls = 0;
    float runs = 0.0f;
    const auto run = [&](uintptr_t key) {
        recordings.run({key}, counter.stream, counter.stream, [&](Stream on) {
            ++calls;
            counter.rise(on);
        });
        return counter.read() == ++runs;
    };
    bool right = true;
    const auto calls_of = [&](uintptr_t key) {
        calls = 0;
        right = run(key) && right;
        return calls;
    };
    for (const int expected : {1, 1, 0, 0})
        right = calls_of(0) == expected && right;
    for (uintptr_t key = 1; key < Recordings::most; ++key) // all fit
        right = calls_of(key) == 1 && calls_of(key) == 1 && calls_of(0) == 0 && right;
    right = calls_of(Recordings::most) == 1 && right; // in the place of 1, used longest ago
    right = calls_of(0) == 0 && calls_of(2) == 0 && right;
    right = calls_of(1) == 1 && calls_of(1) == 1 && calls_of(1) == 0 && right;
    recordings.forget();
    return calls_of(0) == 1 && right;
}

const Check checks[] = {
    {"a recording does nothing before it is replayed",
     recording_does_nothing_before_it_is_replayed},
    {"waits are refused", waits_are_refused},
    {"allocations are refused", allocations_are_refused},
    {"what work throws is told", what_work_throws_is_told},
    {"the default stream is refused", default_stream_is_refused},
    {"a few recordings are kept", a_few_recordings_are_kept},
};

} // namespace

int main() { return run(checks); }
