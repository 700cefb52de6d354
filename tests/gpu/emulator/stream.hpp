// Streams: what is given to one is done when somebody waits for it, or before, by the throw of a
// dice; so that who does not wait, or touches memory too early, does not get away with it.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace relprop::emulator {

using Work = std::function<void()>;

// Whether the stream is there; null and CUDA's other names for it are the default stream of the
// current device.
bool is_stream(cudaStream_t);
bool is_default(cudaStream_t);

// Whether it belongs to the current device.
bool is_here(cudaStream_t);

// Work for a stream that is there.
void give(cudaStream_t, Work);

// Return when all is done that was given to the stream, or to all streams.
void finish(cudaStream_t);
void finish_all();

// ---- capture

// What was given to a stream that captures: it is kept here, and not done.
struct Capture {
    const std::thread::id by = std::this_thread::get_id();
    std::vector<Work> work = {}; // changed under the stream's mutex
    bool spoiled = false;        // by a call that CUDA forbids meanwhile
};

void capture_to(cudaStream_t, std::shared_ptr<Capture>); // null: work is done again
std::shared_ptr<Capture> capture_of(cudaStream_t);       // null where the stream does its work

// Whose captures a call would disturb: allocations and the like those of its own thread, a wait for
// the device those of all its streams.
enum class Captures { of_this_thread, of_this_device };

// Spoils them, and returns whether there were any.
bool spoil_captures(Captures);
bool spoil_capture(cudaStream_t);

} // namespace relprop::emulator
