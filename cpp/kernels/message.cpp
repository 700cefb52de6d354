// A rule's message over a whole tensor, where the sums are known without a product: epsilon (the
// forward pass kept z), w_square (its sums depend on the position only), flat (counts), and the
// layers that are linear with constant weights (pooling, sums of branches, batch norm).
#include "backend.hpp"
#include "epilogue.hpp"
#include "panels.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

int chunks(int groups, int out) { return groups * panels_of(out); }

void message(const Message &m, int64_t rows, int channels, Stream) {
    const int64_t block = slab / channels > 0 ? slab / channels : 1;
    parallel_for((rows + block - 1) / block, [&](int64_t task) {
        const int64_t first = task * block, last = first + block < rows ? first + block : rows;
        for (int64_t row = first; row < last; ++row) {
            const float *z = m.z ? m.z + (m.period ? row % m.period : row) * channels : nullptr;
            for (int c = 0; c < channels; c += panel)
                message_row(m, row, channels, c, smaller(panel, channels - c), z ? z + c : nullptr,
                            c / panel);
        }
    });
}

} // namespace relprop::RELPROP_ISA
