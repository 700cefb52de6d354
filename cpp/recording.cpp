// See recording.hpp.
#include "recording.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace relprop {

bool wants_recordings() {
    const char *wanted = std::getenv("RELPROP_GRAPHS");
    const std::string_view name = wanted ? wanted : "1";
    if (name != "0" && name != "1")
        throw std::runtime_error("RELPROP_GRAPHS must be 0 or 1, not \"" + std::string(name) +
                                 "\".");
    return name == "1";
}

Recording::Recording(const Device &device, Stream own, const std::function<void()> &work)
    : device_(device) {
    try {
        recorded_ = device.record(own, work);
    } catch (const std::exception &error) {
        throw std::runtime_error(
            std::string("a run could not be recorded, which RELPROP_GRAPHS=0 does without: ") +
            error.what());
    }
}

Recording::~Recording() { device_.end_recorded(recorded_); }

void Recordings::run(const Key &key, Stream own, Stream stream,
                     const std::function<void(Stream)> &work) {
    const auto found = std::find_if(known_.begin(), known_.end(),
                                    [&](const Known &known) { return known.key == key; });
    if (found == known_.end()) {
        work(stream);
        if (known_.size() == most)
            known_.erase(known_.begin());
        known_.push_back({key, nullptr});
        return;
    }
    std::rotate(found, found + 1, known_.end());
    auto &recording = known_.back().recording;
    if (!recording)
        recording = std::make_unique<Recording>(device_, own, [&] { work(own); });
    recording->replay(stream);
}

} // namespace relprop
