// See pages.hpp. Small blocks come from the heap: pages of their own would be mostly empty.
#include "pages.hpp"

#include <sys/mman.h>

#include <new>

namespace relprop {
namespace {

constexpr size_t huge = size_t{1} << 21;
constexpr std::align_val_t line{64};

} // namespace

Pages::Pages(int64_t floats) : floats_(floats) {
    const size_t needed = static_cast<size_t>(floats) * sizeof(float);
    if (needed < huge) {
        data_ = static_cast<float *>(operator new(needed, line));
        return;
    }
    bytes_ = needed + huge; // so that it can begin where a huge page does
    mapped_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED)
        throw std::bad_alloc();
    const size_t beyond = reinterpret_cast<uintptr_t>(mapped_) % huge;
    char *first = static_cast<char *>(mapped_) + (beyond ? huge - beyond : 0);
    madvise(first, needed, MADV_HUGEPAGE);
    data_ = reinterpret_cast<float *>(first);
}

Pages::~Pages() {
    if (mapped_)
        munmap(mapped_, bytes_);
    else
        operator delete(data_, line);
}

} // namespace relprop
