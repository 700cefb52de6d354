// See stream.hpp; with the runtime's calls for streams and events.
#include "stream.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "dice.hpp"
#include "runtime.hpp"

struct CUstream_st {
    explicit CUstream_st(int device_) : device(device_) {}
    const int device;
    std::mutex order;                         // held by who does the work, until it is done
    std::mutex mutex;                         // of what follows
    std::deque<relprop::emulator::Work> work; // not done yet
    std::shared_ptr<relprop::emulator::Capture> capture;
};

namespace relprop::emulator {
namespace {

using Stream = std::shared_ptr<CUstream_st>;

struct Event {
    Stream recorded; // where it was, last
    std::chrono::steady_clock::time_point at{};
};

struct Registry {
    std::mutex mutex;
    std::vector<Stream> defaults; // by device
    std::map<cudaStream_t, Stream> streams;
    std::map<cudaEvent_t, std::shared_ptr<Event>> events;
    Registry() {
        for (int i = 0; i < devices; ++i)
            defaults.push_back(std::make_shared<CUstream_st>(i));
    }
};

Registry &registry() {
    static Registry &only = *new Registry; // outlives whoever waits at exit
    return only;
}

// Null where there is none.
Stream find(cudaStream_t stream) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    if (is_default(stream))
        return all.defaults[static_cast<size_t>(current_device())];
    const auto it = all.streams.find(stream);
    return it == all.streams.end() ? nullptr : it->second;
}

std::shared_ptr<Event> find(cudaEvent_t event) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    const auto it = all.events.find(event);
    return it == all.events.end() ? nullptr : it->second;
}

void do_work(CUstream_st &stream) {
    const std::lock_guard turn(stream.order);
    for (;;) {
        Work next;
        {
            const std::lock_guard lock(stream.mutex);
            if (stream.work.empty())
                return;
            next = std::move(stream.work.front());
            stream.work.pop_front();
        }
        next();
    }
}

} // namespace

bool is_stream(cudaStream_t stream) { return find(stream) != nullptr; }

bool is_default(cudaStream_t stream) {
    constexpr uintptr_t last_name = 2; // null, cudaStreamLegacy, cudaStreamPerThread
    return reinterpret_cast<uintptr_t>(stream) <= last_name;
}

bool is_here(cudaStream_t stream) {
    const Stream found = find(stream);
    return found && found->device == current_device();
}

void give(cudaStream_t stream, Work work) {
    constexpr unsigned patience = 8;
    const Stream to = find(stream);
    {
        const std::lock_guard lock(to->mutex);
        if (to->capture)
            return to->capture->work.push_back(std::move(work));
        to->work.push_back(std::move(work));
    }
    if (draw_below(patience) == 0)
        do_work(*to);
}

void finish(cudaStream_t stream) { do_work(*find(stream)); }

void finish_all() {
    Registry &all = registry();
    std::vector<Stream> streams;
    {
        const std::lock_guard lock(all.mutex);
        streams = all.defaults;
        for (const auto &[_, stream] : all.streams)
            streams.push_back(stream);
    }
    for (const Stream &stream : streams)
        do_work(*stream);
}

// ---- capture

void capture_to(cudaStream_t stream, std::shared_ptr<Capture> capture) {
    const Stream of = find(stream);
    const std::lock_guard lock(of->mutex);
    of->capture = std::move(capture);
}

std::shared_ptr<Capture> capture_of(cudaStream_t stream) {
    const Stream of = find(stream);
    const std::lock_guard lock(of->mutex);
    return of->capture;
}

bool spoil_captures(Captures which) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    bool any = false;
    for (const auto &[_, stream] : all.streams) {
        const std::lock_guard lock_of_stream(stream->mutex);
        Capture *capture = stream->capture.get();
        if (capture &&
            (which == Captures::of_this_device ? stream->device == current_device()
                                               : capture->by == std::this_thread::get_id()))
            any = capture->spoiled = true;
    }
    return any;
}

bool spoil_capture(cudaStream_t stream) {
    const Stream of = find(stream);
    const std::lock_guard lock(of->mutex);
    return of->capture && (of->capture->spoiled = true);
}

} // namespace relprop::emulator

using namespace relprop::emulator;

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    const auto made = std::make_shared<CUstream_st>(current_device());
    auto &all = registry();
    const std::lock_guard lock(all.mutex);
    all.streams[made.get()] = made;
    *stream = made.get();
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, 0); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    auto &all = registry();
    const auto found = find(stream);
    if (found)
        do_work(*found);
    const std::lock_guard lock(all.mutex);
    return require(all.streams.erase(stream) > 0, cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (!is_stream(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (spoil_capture(stream))
        return result(cudaErrorStreamCaptureUnsupported);
    finish(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const auto found = find(stream);
    if (!found)
        return result(cudaErrorInvalidResourceHandle);
    if (spoil_capture(stream))
        return result(cudaErrorStreamCaptureUnsupported);
    const std::lock_guard lock(found->mutex);
    return found->work.empty() ? cudaSuccess : cudaErrorNotReady; // which is no error to keep
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const auto found = find(event);
    if (!is_stream(stream) || !found)
        return result(cudaErrorInvalidResourceHandle);
    if (spoil_capture(stream)) // CUDA would let the graph fork
        return result(cudaErrorStreamCaptureUnsupported);
    if (found->recorded)
        do_work(*found->recorded);
    return cudaSuccess;
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    const auto made = std::make_shared<Event>();
    auto &all = registry();
    const std::lock_guard lock(all.mutex);
    *event = reinterpret_cast<cudaEvent_t>(made.get());
    all.events[*event] = made;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    auto &all = registry();
    const std::lock_guard lock(all.mutex);
    return require(all.events.erase(event) > 0, cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const auto found = find(event);
    if (!found || !is_here(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (spoil_capture(stream))
        return result(cudaErrorStreamCaptureUnsupported);
    found->recorded = find(stream);
    give(stream, [found] { found->at = std::chrono::steady_clock::now(); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const auto found = find(event);
    if (found && found->recorded)
        do_work(*found->recorded);
    return require(found != nullptr, cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    const auto first = find(from), second = find(to);
    if (!first || !second || !first->recorded || !second->recorded)
        return result(cudaErrorInvalidResourceHandle);
    constexpr std::chrono::steady_clock::time_point never{};
    if (first->at == never || second->at == never)
        return result(cudaErrorNotReady);
    *milliseconds = std::chrono::duration<float, std::milli>(second->at - first->at).count();
    return cudaSuccess;
}
