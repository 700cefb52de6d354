// See device_run.hpp.
#include "device_run.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

namespace relprop {

Pinned::Pinned(const Device &device, int64_t bytes)
    : device_(device), bytes_(bytes), data_(static_cast<char *>(device.allocate_pinned(bytes))) {}
Pinned::~Pinned() { device_.release_pinned(data_); }

Lane::Lane(const Kernels &of) : kernels(of), recordings(*of.device) {
    const Using device(kernels.device, kernels.device_index);
    stream = kernels.device->make_stream();
}

Lane::~Lane() { kernels.device->end_stream(stream); }

void Lane::reserve(int64_t arena_floats, int64_t bytes, int64_t pinned_bytes) {
    const int64_t floats = (bytes + 3) / 4;
    if (!arena || arena->floats() < arena_floats) {
        recordings.forget();
        arena.reset(); // before more is asked for
        arena = std::make_unique<Memory>(kernels, arena_floats);
    }
    if (!arrays || arrays->floats() < floats) {
        recordings.forget();
        arrays.reset();
        arrays = std::make_unique<Memory>(kernels, floats);
    }
    if (!pinned || pinned->bytes() < pinned_bytes) {
        recordings.forget();
        pinned.reset();
        pinned = std::make_unique<Pinned>(*kernels.device, pinned_bytes);
    }
}

namespace {

constexpr int64_t most_from_host = 64;   // samples at once: copies overlap with computing
constexpr int64_t most_on_device = 256;  // where nothing is copied
constexpr double share_of_memory = 0.45; // of what is free, for a lane: there may be two
constexpr int64_t apart = 256;           // bytes between the beginnings of arrays, at least
constexpr int64_t most_recorded = 32;    // samples: more compute for longer than launches take

int64_t padded(int64_t bytes) { return (bytes + apart - 1) / apart * apart; }

// An array of the request that a lane holds for as many samples as it runs at once.
struct Column {
    const void *in = nullptr; // of the user, copied there before; or
    void *out = nullptr;      // copied from there afterwards
    int64_t bytes = 0;        // of a sample
    bool on_device = false;   // where the user has it
    int64_t at = 0;           // in the lane's arrays
};

} // namespace

// One request on its way.
class DeviceRun {
  public:
    DeviceRun(const Plan &plan, const Request &request);
    void run();

  private:
    // A lane and the samples that it is busy with.
    struct Work {
        std::unique_ptr<Lane> lane;
        int64_t first = 0, n = 0; // n = 0: idle
    };

    void lay_out(int64_t samples);
    void add_column(const void *in, void *out, int64_t bytes, bool on_device = false);
    void place_columns(bool on_device);
    std::unique_ptr<Lane> take_lane() const;
    int64_t samples_at_once(const Lane &lane);
    void reserve(Lane &lane);
    std::unique_ptr<Lane> second_lane() const;
    void begin(Work &work, int64_t first, int64_t n);
    void launch(const Lane &lane, Request part, Stream stream) const;
    void finish(Work &work);
    Stream stream_of(const Lane &lane) const;
    Request part_of(const Lane &lane, int64_t first, int64_t n) const;
    Recordings::Key key_of(const Lane &lane, const Request &part) const;
    void throw_bad(const Work &work) const;
    void check_owners() const;
    int64_t bad_bytes() const { return static_cast<int64_t>(bad_count_ * sizeof(int64_t)); }
    int64_t size_of(int tensor) const { return plan_.tensor(tensor).image.size(); }

    const Plan &plan_;
    const Kernels &kernels_;
    const Request &request_;
    // A recording is for arrays that are where they were: the lane's, never the user's.
    const bool recorded_, in_place_;
    int64_t at_once_ = 0;
    std::vector<Column> columns_; // in the order in which part_of() asks for them
    int64_t bytes_ = 0;           // of what is bad and all columns, for at_once_ samples
    int64_t pinned_bytes_ = 0;    // of those before the first that the user has on the device
    size_t bad_count_;
};

DeviceRun::DeviceRun(const Plan &plan, const Request &request)
    : plan_(plan), kernels_(plan.kernels()), request_(request),
      recorded_(wants_recordings() && request.n <= most_recorded && !request.seconds),
      in_place_(request.on_device && !recorded_), bad_count_(1 + request.relevance.size()) {}

// ---- what a lane holds -------------------------------------------------------------------------

void DeviceRun::add_column(const void *in, void *out, int64_t bytes, bool on_device) {
    columns_.push_back({in, out, bytes, on_device});
}

void DeviceRun::place_columns(bool on_device) {
    for (Column &of : columns_)
        if (of.on_device == on_device) {
            of.at = bytes_;
            bytes_ += padded(of.bytes * at_once_);
        }
}

void DeviceRun::lay_out(int64_t samples) {
    constexpr int64_t number = sizeof(float);
    at_once_ = samples;
    columns_.clear();
    const int64_t outputs = size_of(plan_.output());
    if (!in_place_) {
        const bool there = request_.on_device;
        for (size_t i = 0; i < request_.inputs.size(); ++i)
            add_column(request_.inputs[i], nullptr, size_of(plan_.inputs()[i]) * number, there);
        add_column(nullptr, request_.scores, outputs * number, there);
        for (size_t i = 0; i < request_.relevance.size(); ++i)
            add_column(nullptr, request_.relevance[i], size_of(plan_.inputs()[i]) * number, there);
        if (request_.given)
            add_column(request_.given, nullptr, outputs * number, there);
        for (const Copy &copy : request_.copies)
            add_column(nullptr, copy.out, size_of(copy.tensor) * number, there);
    }
    if (request_.targets)
        add_column(request_.argmax ? nullptr : request_.targets,
                   request_.argmax ? request_.targets : nullptr, sizeof(int64_t));
    if (request_.mask)
        add_column(request_.mask, nullptr, outputs);
    if (request_.absorbed)
        add_column(nullptr, request_.absorbed, plan_.steps() * accounts * sizeof(double));
    if (request_.totals)
        add_column(nullptr, request_.totals, plan_.tensors() * 2 * sizeof(double));
    bytes_ = padded(bad_bytes());
    place_columns(false);
    pinned_bytes_ = bytes_;
    place_columns(true);
}

std::unique_ptr<Lane> DeviceRun::take_lane() const {
    {
        std::lock_guard lock(plan_.mutex_);
        if (!plan_.lanes_.empty()) {
            auto lane = std::move(plan_.lanes_.back());
            plan_.lanes_.pop_back();
            return lane;
        }
    }
    return std::make_unique<Lane>(kernels_);
}

// As many samples at once as the device has memory for.
void DeviceRun::reserve(Lane &lane) {
    while (true)
        try {
            return lane.reserve(plan_.arena_floats(at_once_), bytes_, pinned_bytes_);
        } catch (const DeviceOutOfMemory &error) {
            if (at_once_ == 1)
                throw DeviceOutOfMemory(std::string("one sample does not fit: ") + error.what());
            lay_out((at_once_ + 1) / 2);
        }
}

// ---- running -----------------------------------------------------------------------------------

void DeviceRun::check_owners() const {
    const auto check = [this](const void *array, const char *name) {
        if (array && kernels_.device->owner(array) != kernels_.device_index)
            throw std::invalid_argument(std::string(name) + " must be in the memory of device " +
                                        std::to_string(kernels_.device_index) + ".");
    };
    for (const float *input : request_.inputs)
        check(input, "inputs");
    check(request_.scores, "scores");
    for (const float *relevance : request_.relevance)
        check(relevance, "relevance");
    check(request_.given, "given");
    for (const Copy &copy : request_.copies)
        check(copy.out, "copies");
}

// None where memory has room for one lane only: then nothing is copied beside computing.
std::unique_ptr<Lane> DeviceRun::second_lane() const {
    auto lane = take_lane();
    try {
        lane->reserve(plan_.arena_floats(at_once_), bytes_, pinned_bytes_);
    } catch (const DeviceOutOfMemory &) {
        return nullptr;
    }
    return lane;
}

// As many samples as the lane holds already, or as the free memory has room for.
int64_t DeviceRun::samples_at_once(const Lane &lane) {
    const int64_t most = std::min(request_.n, request_.on_device ? most_on_device : most_from_host);
    const int64_t shared = plan_.arena_floats(0), of_sample = plan_.arena_floats(1) - shared;
    const int64_t held = lane.arena ? (lane.arena->floats() - shared) / of_sample : 0;
    if (held >= most)
        return most;
    lay_out(1);
    const double room = share_of_memory * static_cast<double>(kernels_.device->free_bytes()) / 4.0;
    const auto fits = static_cast<int64_t>((room - static_cast<double>(shared)) /
                                           static_cast<double>(of_sample + (bytes_ + 3) / 4));
    return std::clamp<int64_t>(std::max(fits, held), 1, most);
}

void DeviceRun::run() {
    if (request_.n == 0)
        return;
    const Using device(kernels_.device, kernels_.device_index);
    if (request_.on_device)
        check_owners();
    std::array<Work, 2> works;
    works[0].lane = take_lane();
    lay_out(samples_at_once(*works[0].lane));
    reserve(*works[0].lane);
    if (!request_.on_device && request_.n > at_once_)
        works[1].lane = second_lane();

    const auto give_back = [&] {
        std::lock_guard lock(plan_.mutex_);
        for (Work &work : works)
            if (work.lane)
                plan_.lanes_.push_back(std::move(work.lane));
    };
    try {
        size_t turn = 0;
        for (int64_t first = 0, n; first < request_.n; first += n) {
            if (first > 0 && request_.between_chunks)
                request_.between_chunks();
            Work &work = works[turn];
            finish(work);
            n = std::min(at_once_, request_.n - first);
            begin(work, first, n);
            turn = works[1].lane ? 1 - turn : 0;
        }
        finish(works[turn]); // the older one first
        finish(works[1 - turn]);
    } catch (...) {
        for (Work &work : works)
            if (work.lane)
                try {
                    kernels_.device->wait(stream_of(*work.lane));
                } catch (const std::runtime_error &) { // the first error is the one to tell
                }
        give_back();
        throw;
    }
    give_back();
}

Stream DeviceRun::stream_of(const Lane &lane) const {
    return request_.on_device ? request_.stream : lane.stream;
}

// The request for some samples, in the device's memory.
Request DeviceRun::part_of(const Lane &lane, int64_t first, int64_t n) const {
    Request part;
    part.n = n;
    part.on_device = true;
    part.initial = request_.initial;
    part.argmax = request_.argmax;
    part.seconds = request_.seconds;
    size_t column = 0;
    const auto next = [&] {
        return reinterpret_cast<char *>(lane.arrays->data()) + columns_[column++].at;
    };
    const auto floats = [&](auto *user, int64_t size) {
        return in_place_ ? const_cast<float *>(user) + first * size
                         : reinterpret_cast<float *>(next());
    };
    const int64_t outputs = size_of(plan_.output());
    for (size_t i = 0; i < request_.inputs.size(); ++i)
        part.inputs.push_back(floats(request_.inputs[i], size_of(plan_.inputs()[i])));
    part.scores = floats(request_.scores, outputs);
    for (size_t i = 0; i < request_.relevance.size(); ++i)
        part.relevance.push_back(floats(request_.relevance[i], size_of(plan_.inputs()[i])));
    if (request_.given)
        part.given = floats(request_.given, outputs);
    for (const Copy &copy : request_.copies)
        part.copies.push_back(
            {copy.tensor, copy.of_relevance, floats(copy.out, size_of(copy.tensor))});
    if (request_.targets)
        part.targets = reinterpret_cast<int64_t *>(next());
    if (request_.mask)
        part.mask = reinterpret_cast<uint8_t *>(next());
    if (request_.absorbed)
        part.absorbed = reinterpret_cast<double *>(next());
    if (request_.totals)
        part.totals = reinterpret_cast<double *>(next());
    return part;
}

void DeviceRun::begin(Work &work, int64_t first, int64_t n) {
    work.first = first;
    work.n = n;
    Lane &lane = *work.lane;
    const Stream stream = stream_of(lane);
    const Request part = part_of(lane, first, n);
    char *device = reinterpret_cast<char *>(lane.arrays->data()), *host = lane.pinned->data();
    for (const Column &of : columns_) {
        if (!of.in)
            continue;
        const char *in = static_cast<const char *>(of.in) + first * of.bytes;
        if (of.on_device)
            kernels_.device->copy(device + of.at, in, n * of.bytes, stream);
        else
            std::memcpy(host + of.at, in, static_cast<size_t>(n * of.bytes));
    }
    if (recorded_)
        lane.recordings.run(key_of(lane, part), lane.stream, stream,
                            [&](Stream on) { launch(lane, part, on); });
    else
        launch(lane, part, stream);
    for (const Column &of : columns_)
        if (of.out && of.on_device)
            kernels_.device->copy(static_cast<char *>(of.out) + first * of.bytes, device + of.at,
                                  n * of.bytes, stream);
}

// All that a recording may hold, between the lane's pinned memory and its arrays.
void DeviceRun::launch(const Lane &lane, Request part, Stream stream) const {
    char *device = reinterpret_cast<char *>(lane.arrays->data()), *host = lane.pinned->data();
    part.stream = stream;
    for (const Column &of : columns_)
        if (of.in && !of.on_device)
            kernels_.device->copy(device + of.at, host + of.at, part.n * of.bytes, stream);
    // doubles, twice as wide as floats
    if (part.absorbed)
        kernels_.fill(0.0f, reinterpret_cast<float *>(part.absorbed),
                      2 * part.n * plan_.steps() * accounts, stream);
    if (part.totals) // what no step tells shows: all bits make a NaN, of a double as well
        kernels_.fill(std::bit_cast<float>(~uint32_t{0}), reinterpret_cast<float *>(part.totals),
                      2 * part.n * plan_.tensors() * 2, stream);
    plan_.run_chunk(part, 0, part.n, *lane.arena, reinterpret_cast<int64_t *>(device));
    for (const Column &of : columns_)
        if (of.out && !of.on_device)
            kernels_.device->copy(host + of.at, device + of.at, part.n * of.bytes, stream);
    kernels_.device->copy(host, device, bad_bytes(), stream);
}

// All that launch() depends on.
Recordings::Key DeviceRun::key_of(const Lane &lane, const Request &part) const {
    Recordings::Key key;
    const auto add = [&](auto... values) { (key.push_back(static_cast<uintptr_t>(values)), ...); };
    const auto add_address = [&](const auto *...at) { add(reinterpret_cast<uintptr_t>(at)...); };
    add(part.n, part.initial, part.argmax, request_.on_device, part.relevance.size());
    add_address(lane.arena->data(), lane.arrays->data(), lane.pinned->data());
    add_address(part.scores, part.given, part.targets, part.mask, part.absorbed, part.totals);
    for (const float *input : part.inputs)
        add_address(input);
    for (const float *relevance : part.relevance)
        add_address(relevance);
    for (const Copy &copy : part.copies) {
        add(copy.tensor, copy.of_relevance);
        add_address(copy.out);
    }
    return key;
}

void DeviceRun::finish(Work &work) {
    if (work.n == 0)
        return;
    const Lane &lane = *work.lane;
    kernels_.device->wait(stream_of(lane));
    throw_bad(work);
    for (const Column &of : columns_)
        if (of.out && !of.on_device)
            std::memcpy(static_cast<char *>(of.out) + work.first * of.bytes,
                        lane.pinned->data() + of.at, static_cast<size_t>(work.n * of.bytes));
    work.n = 0;
}

void DeviceRun::throw_bad(const Work &work) const {
    const char *at = work.lane->pinned->data();
    for (size_t i = 0; i < bad_count_; ++i) {
        int64_t bad;
        std::memcpy(&bad, at + i * sizeof(bad), sizeof(bad));
        const int64_t size = size_of(i == 0 ? plan_.output() : plan_.inputs()[i - 1]);
        if (bad >= 0)
            throw_not_finite(i == 0 ? "output" : "relevance", work.first + bad / size, bad % size);
    }
}

void run_on_device(const Plan &plan, const Request &request) { DeviceRun(plan, request).run(); }

} // namespace relprop
