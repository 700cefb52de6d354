// See stopwatch.hpp.
#include "stopwatch.hpp"

namespace relprop {

Stopwatch::~Stopwatch() {
    for (const Lap &lap : laps_)
        for (void *mark : {lap.begun, lap.ended})
            if (mark)
                device_->end_mark(mark);
}

void Stopwatch::begin(int64_t place) {
    place_ = place;
    if (device_)
        laps_.push_back({place, device_->mark(stream_), nullptr});
    else
        begun_ = Clock::now();
}

void Stopwatch::end() {
    if (device_)
        laps_.back().ended = device_->mark(stream_);
    else
        seconds_[place_] += std::chrono::duration<double>(Clock::now() - begun_).count();
}

void Stopwatch::read() {
    if (laps_.empty())
        return;
    device_->wait(stream_);
    for (const Lap &lap : laps_)
        seconds_[lap.place] += device_->seconds_between(lap.begun, lap.ended);
}

} // namespace relprop
