// What single steps of a run take.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "device.hpp"

namespace relprop {

// Adds what works take to the places of an array. Nobody waits for a device between them, so that
// launches do not count where it is busy: its stream notes when it came to each beginning and end.
class Stopwatch {
  public:
    // Measures nothing where there is no array. `device` is null where works run on the host.
    Stopwatch(const Device *device, Stream stream, double *seconds)
        : device_(device), stream_(stream), seconds_(seconds) {}
    ~Stopwatch();
    Stopwatch(const Stopwatch &) = delete;
    Stopwatch &operator=(const Stopwatch &) = delete;

    template <class Work> void time(int64_t place, const Work &work) {
        if (!seconds_)
            return work();
        begin(place);
        work();
        end();
    }
    // Waits until all works are done; a device's are in the array afterwards, not sooner.
    void read();

  private:
    struct Lap {
        int64_t place;
        void *begun, *ended; // marks of the device
    };
    using Clock = std::chrono::steady_clock;
    void begin(int64_t place);
    void end();

    const Device *device_;
    Stream stream_;
    double *seconds_;
    std::vector<Lap> laps_; // of a device, not read yet
    Clock::time_point begun_;
    int64_t place_ = 0;
};

} // namespace relprop
