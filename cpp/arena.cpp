// See arena.hpp.
#include "arena.hpp"

#include <algorithm>

namespace relprop {

int64_t place(std::vector<Buffer> buffers) {
    constexpr int64_t line = 16; // floats in a cache line
    for (Buffer &buffer : buffers)
        buffer.size = (buffer.size + line - 1) / line * line;
    std::stable_sort(buffers.begin(), buffers.end(),
                     [](const Buffer &a, const Buffer &b) { return a.size > b.size; });
    int64_t total = 0;
    std::vector<const Buffer *> placed; // by offset
    for (const Buffer &buffer : buffers) {
        int64_t offset = 0;
        for (const Buffer *other : placed) {
            if (other->end < buffer.begin || buffer.end < other->begin)
                continue;
            if (offset + buffer.size <= *other->at)
                break;
            offset = std::max(offset, *other->at + other->size);
        }
        *buffer.at = offset;
        total = std::max(total, offset + buffer.size);
        placed.insert(
            std::upper_bound(placed.begin(), placed.end(), &buffer,
                             [](const Buffer *a, const Buffer *b) { return *a->at < *b->at; }),
            &buffer);
    }
    return total;
}

} // namespace relprop
