// See device_memory.hpp.
#include "device_memory.hpp"

#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <mutex>
#include <new>
#include <vector>

namespace relprop::emulator {
namespace {

constexpr size_t alignment = 256, guard_bytes = 256;
constexpr unsigned char guard = 0xA5;

struct Range {
    void *begin;
    size_t size;
};

// All that is reserved, and how many have access.
struct Reserved {
    std::mutex mutex;
    std::vector<Range> ranges;
    int accesses = 0;

    void protect(int how) const {
        for (const Range &range : ranges)
            mprotect(range.begin, range.size, how);
    }
};

Reserved &reserved() {
    static Reserved &only = *new Reserved; // outlives whoever releases memory at exit
    return only;
}

// From the beginning of an allocation to where the next may begin.
size_t span(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment + guard_bytes; }

} // namespace

Access::Access() {
    Reserved &all = reserved();
    const std::lock_guard lock(all.mutex);
    if (all.accesses++ == 0)
        all.protect(PROT_READ | PROT_WRITE);
}

Access::~Access() {
    Reserved &all = reserved();
    const std::lock_guard lock(all.mutex);
    if (--all.accesses == 0)
        all.protect(PROT_NONE);
}

DeviceMemory::DeviceMemory(size_t bytes) : size_(bytes) {
    const size_t spacious = 2 * bytes + (size_t{1} << 20); // for guards and gaps
    void *memory =
        mmap(nullptr, spacious, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        throw std::bad_alloc();
    madvise(memory, spacious, MADV_HUGEPAGE); // access is given and taken at each launch
    begin_ = reinterpret_cast<uintptr_t>(memory);
    Reserved &all = reserved();
    const std::lock_guard lock(all.mutex);
    all.ranges.push_back({memory, spacious});
    if (all.accesses > 0)
        all.protect(PROT_READ | PROT_WRITE);
    allocations_[begin_ + spacious] = 0; // ends the last gap
}

void *DeviceMemory::allocate(size_t bytes) {
    if (bytes > size_ - used_)
        return nullptr;
    uintptr_t at = begin_;
    for (const auto &[next, size] : allocations_) { // the first gap that is large enough
        if (next - at >= span(bytes)) {
            const Access access;
            auto *memory = reinterpret_cast<unsigned char *>(at);
            std::memset(memory, 0xFF, bytes);
            std::memset(memory + bytes, guard, guard_bytes);
            allocations_[at] = bytes;
            used_ += bytes;
            return memory;
        }
        at = next + span(size);
    }
    return nullptr;
}

bool DeviceMemory::release(const void *memory) {
    const auto it = allocations_.find(reinterpret_cast<uintptr_t>(memory));
    if (it == allocations_.end() || it->second == 0)
        return false;
    const Access access;
    std::memset(reinterpret_cast<void *>(it->first), 0xFF, it->second); // for who still reads it
    used_ -= it->second;
    allocations_.erase(it);
    return true;
}

size_t DeviceMemory::room(const void *pointer) const {
    const auto at = reinterpret_cast<uintptr_t>(pointer);
    const auto next = allocations_.upper_bound(at);
    if (next == allocations_.begin())
        return 0;
    const auto &[begin, size] = *std::prev(next);
    return at - begin < size ? size - (at - begin) : 0;
}

bool DeviceMemory::intact() const {
    const Access access;
    for (const auto &[begin, size] : allocations_)
        for (size_t i = 0; size > 0 && i < guard_bytes; ++i)
            if (reinterpret_cast<const unsigned char *>(begin)[size + i] != guard)
                return false;
    return true;
}

} // namespace relprop::emulator
