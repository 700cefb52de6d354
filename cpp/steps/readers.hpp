// An index table from the other side: who reads each place. What is scattered through the one is
// gathered through the other, in the same order.
#pragma once

#include <cstdint>
#include <vector>

namespace relprop {

struct Readers {
    std::vector<int32_t> offsets; // [places + 1]  place i has readers [offsets[i], offsets[i + 1])
    std::vector<int32_t> reader;  // their numbers in the table, ascending
};

// index: the place that each entry reads, in [0, places), or -1 for none.
inline Readers readers_of(const std::vector<int32_t> &index, int64_t places) {
    Readers of;
    of.offsets.assign(static_cast<size_t>(places) + 1, 0);
    for (int32_t place : index)
        if (place >= 0)
            ++of.offsets[static_cast<size_t>(place) + 1];
    for (size_t i = 1; i < of.offsets.size(); ++i)
        of.offsets[i] += of.offsets[i - 1];
    of.reader.resize(static_cast<size_t>(of.offsets.back()));
    std::vector<int32_t> next(of.offsets.begin(), of.offsets.end() - 1);
    for (size_t entry = 0; entry < index.size(); ++entry)
        if (index[entry] >= 0)
            of.reader[static_cast<size_t>(next[static_cast<size_t>(index[entry])]++)] =
                static_cast<int32_t>(entry);
    return of;
}

} // namespace relprop
