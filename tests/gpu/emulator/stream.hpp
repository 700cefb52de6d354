// Streams: what is given to one is done when somebody waits for it, or before, by the throw of a
// dice; so that who does not wait, or touches memory too early, does not get away with it.
#pragma once

#include <functional>

#include "cuda_runtime.h"

namespace relprop::emulator {

// Whether the stream is there; null and CUDA's other names for it are the default stream of the
// current device.
bool is_stream(cudaStream_t);

// Whether it belongs to the current device.
bool is_here(cudaStream_t);

// Work for a stream that is there.
void give(cudaStream_t, std::function<void()> work);

// Return when all is done that was given to the stream, or to all streams.
void finish(cudaStream_t);
void finish_all();

} // namespace relprop::emulator
