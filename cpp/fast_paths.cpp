// See fast_paths.hpp.
#include "fast_paths.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace relprop {

bool goes_without(FastPath path) {
    constexpr std::array<std::string_view, 3> names = {"messages", "fold", "patches"};
    const char *without = std::getenv("RELPROP_WITHOUT");
    bool named = false;
    for (std::string_view left = without ? without : ""; !left.empty();) {
        const std::string_view name = left.substr(0, left.find(','));
        left.remove_prefix(std::min(name.size() + 1, left.size()));
        if (std::find(names.begin(), names.end(), name) == names.end())
            throw std::runtime_error(
                "RELPROP_WITHOUT must name messages, fold or patches, with commas between, not \"" +
                std::string(name) + "\".");
        named |= name == names.at(static_cast<size_t>(path));
    }
    return named;
}

} // namespace relprop
