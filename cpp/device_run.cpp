// See device_run.hpp.
#include "device_run.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

namespace relprop {

Pinned::Pinned(const Device &device, int64_t bytes)
    : device_(device), data_(static_cast<char *>(device.allocate_pinned(bytes))) {}
Pinned::~Pinned() { device_.release_pinned(data_); }

Lane::Lane(const Kernels &of) : kernels(of) {
    kernels.device->use(kernels.device_index);
    stream = kernels.device->make_stream();
}

Lane::~Lane() { kernels.device->end_stream(stream); }

void Lane::reserve(int64_t arena_floats, int64_t bytes) {
    if (!arena || arena->floats() < arena_floats) {
        arena.reset(); // before more is asked for
        arena = std::make_unique<Memory>(kernels, arena_floats);
    }
    if (!arrays || bytes_ < bytes) {
        arrays.reset();
        pinned.reset();
        arrays = std::make_unique<Memory>(kernels, (bytes + 3) / 4);
        pinned = std::make_unique<Pinned>(*kernels.device, bytes);
        bytes_ = bytes;
    }
}

namespace {

constexpr int64_t most_from_host = 64;   // samples at once: copies overlap with computing
constexpr int64_t most_on_device = 256;  // where nothing is copied
constexpr double share_of_memory = 0.45; // of what is free, for a lane: there may be two
constexpr int64_t apart = 256;           // bytes between the beginnings of arrays, at least

// An array of the request that a lane holds for as many samples as it runs at once.
struct Column {
    const void *in = nullptr; // of the user, copied there before; or
    void *out = nullptr;      // copied from there afterwards
    int64_t bytes = 0;        // of a sample
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
    void add_column(const void *in, void *out, int64_t bytes);
    std::unique_ptr<Lane> take_lane() const;
    void reserve(Lane &lane);
    void begin(Work &work, int64_t first, int64_t n);
    void finish(Work &work);
    Request part_of(const Lane &lane, int64_t first, int64_t n) const;
    void throw_bad(const Work &work) const;
    void check_owners() const;
    int64_t size_of(int tensor) const { return plan_.tensor(tensor).image.size(); }

    const Plan &plan_;
    const Kernels &kernels_;
    const Request &request_;
    int64_t at_once_ = 0;
    std::vector<Column> columns_; // in the order in which part_of() asks for them
    int64_t bytes_ = 0;           // of all columns for at_once_ samples
    int64_t bad_at_ = 0;
    size_t bad_count_;
};

DeviceRun::DeviceRun(const Plan &plan, const Request &request)
    : plan_(plan), kernels_(plan.kernels()), request_(request),
      bad_count_(1 + request.relevance.size()) {}

// ---- what a lane holds -------------------------------------------------------------------------

void DeviceRun::add_column(const void *in, void *out, int64_t bytes) {
    columns_.push_back({in, out, bytes, bytes_});
    bytes_ += (bytes * at_once_ + apart - 1) / apart * apart;
}

void DeviceRun::lay_out(int64_t samples) {
    constexpr int64_t number = sizeof(float);
    at_once_ = samples;
    bytes_ = 0;
    columns_.clear();
    const int64_t outputs = size_of(plan_.output());
    if (!request_.on_device) {
        for (size_t i = 0; i < request_.inputs.size(); ++i)
            add_column(request_.inputs[i], nullptr, size_of(plan_.inputs()[i]) * number);
        add_column(nullptr, request_.scores, outputs * number);
        for (size_t i = 0; i < request_.relevance.size(); ++i)
            add_column(nullptr, request_.relevance[i], size_of(plan_.inputs()[i]) * number);
        if (request_.given)
            add_column(request_.given, nullptr, outputs * number);
        for (const Copy &copy : request_.copies)
            add_column(nullptr, copy.out, size_of(copy.tensor) * number);
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
    bad_at_ = bytes_;
    bytes_ += static_cast<int64_t>(bad_count_ * sizeof(int64_t));
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
            return lane.reserve(plan_.arena_floats(at_once_), bytes_);
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

void DeviceRun::run() {
    kernels_.device->use(kernels_.device_index);
    if (request_.n == 0)
        return;
    if (request_.on_device)
        check_owners();
    lay_out(1);
    const int64_t floats = plan_.arena_floats(1) + (bytes_ + 3) / 4;
    const double room = share_of_memory * static_cast<double>(kernels_.device->free_bytes());
    const int64_t most = request_.on_device ? most_on_device : most_from_host;
    const int64_t fits = static_cast<int64_t>(room / 4.0 / static_cast<double>(floats));
    std::array<Work, 2> works;
    works[0].lane = take_lane();
    // what an idle lane holds already is not free
    const bool enough = works[0].lane->arena && fits < std::min(request_.n, most);
    const int64_t held = enough ? works[0].lane->arena->floats() / plan_.arena_floats(1) : 0;
    lay_out(std::clamp<int64_t>(std::max(fits, held), 1, std::min(request_.n, most)));
    reserve(*works[0].lane);
    if (!request_.on_device && request_.n > at_once_) {
        // before any work is on its way: less memory moves the places of its arrays
        works[1].lane = take_lane();
        reserve(*works[1].lane);
    }

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
            turn = request_.on_device ? 0 : 1 - turn;
        }
        finish(works[turn]); // the older one first
        finish(works[1 - turn]);
    } catch (...) {
        for (Work &work : works)
            if (work.lane)
                kernels_.device->wait(request_.on_device ? request_.stream : work.lane->stream);
        give_back();
        throw;
    }
    give_back();
}

// The request for some samples, in the device's memory.
Request DeviceRun::part_of(const Lane &lane, int64_t first, int64_t n) const {
    Request part;
    part.n = n;
    part.on_device = true;
    part.stream = request_.on_device ? request_.stream : lane.stream;
    part.initial = request_.initial;
    part.argmax = request_.argmax;
    part.seconds = request_.seconds;
    size_t column = 0;
    const auto next = [&] {
        return reinterpret_cast<char *>(lane.arrays->data()) + columns_[column++].at;
    };
    const auto floats = [&](auto *user, int64_t size) {
        return request_.on_device ? const_cast<float *>(user) + first * size
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
    const Request part = part_of(lane, first, n);
    char *device = reinterpret_cast<char *>(lane.arrays->data()), *host = lane.pinned->data();
    for (const Column &of : columns_)
        if (of.in) {
            std::memcpy(host + of.at, static_cast<const char *>(of.in) + first * of.bytes,
                        static_cast<size_t>(n * of.bytes));
            kernels_.device->copy(device + of.at, host + of.at, n * of.bytes, part.stream);
        }
    if (part.absorbed) // doubles, twice as wide
        kernels_.fill(0.0f, reinterpret_cast<float *>(part.absorbed),
                      2 * n * plan_.steps() * accounts, part.stream);
    plan_.run_chunk(part, 0, n, *lane.arena, reinterpret_cast<int64_t *>(device + bad_at_));
    for (const Column &of : columns_)
        if (of.out)
            kernels_.device->copy(host + of.at, device + of.at, n * of.bytes, part.stream);
    kernels_.device->copy(host + bad_at_, device + bad_at_,
                          static_cast<int64_t>(bad_count_ * sizeof(int64_t)), part.stream);
}

void DeviceRun::finish(Work &work) {
    if (work.n == 0)
        return;
    const Lane &lane = *work.lane;
    kernels_.device->wait(request_.on_device ? request_.stream : lane.stream);
    throw_bad(work);
    for (const Column &of : columns_)
        if (of.out)
            std::memcpy(static_cast<char *>(of.out) + work.first * of.bytes,
                        lane.pinned->data() + of.at, static_cast<size_t>(work.n * of.bytes));
    work.n = 0;
}

void DeviceRun::throw_bad(const Work &work) const {
    const char *at = work.lane->pinned->data() + bad_at_;
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
