// Fast paths that a run can go without, so that what each of them gains can be measured.
#pragma once

namespace relprop {

enum class FastPath { messages, fold, patches };

// Whether the environment names it: RELPROP_WITHOUT=messages,fold,patches. Throws
// std::runtime_error where that names something else.
bool goes_without(FastPath path);

} // namespace relprop
