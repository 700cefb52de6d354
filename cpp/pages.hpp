// A block of floats that nobody fills before its owner does, in huge pages where they fit. Holds a
// run's arena and packed weights.
#pragma once

#include <cstddef>
#include <cstdint>

namespace relprop {

class Pages {
  public:
    explicit Pages(int64_t floats); // throws std::bad_alloc
    ~Pages();
    Pages(const Pages &) = delete;
    Pages &operator=(const Pages &) = delete;

    float *data() const { return data_; }
    int64_t floats() const { return floats_; }

  private:
    int64_t floats_;
    float *data_ = nullptr;
    void *mapped_ = nullptr; // what the system gave, null where the heap did
    size_t bytes_ = 0;       // of it
};

} // namespace relprop
