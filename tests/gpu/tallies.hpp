// What messages tell the ledger, as both devices can be compared.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace relprop {

// Sums over the chunks of each row: the devices cut rows differently.
inline std::vector<float> per_row(const std::vector<float> &tally, int64_t chunks) {
    constexpr auto sums = static_cast<size_t>(tally_sums);
    std::vector<float> rows(tally.size() / static_cast<size_t>(chunks));
    for (size_t i = 0; i < tally.size(); ++i)
        rows[i / (sums * static_cast<size_t>(chunks)) * sums + i % sums] += tally[i];
    return rows;
}

} // namespace relprop
