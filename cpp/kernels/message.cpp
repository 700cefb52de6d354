// A rule's message over a whole tensor, where the sums are known without a product: epsilon (the
// forward pass kept z), w_square (its sums depend on the position only), flat (counts), and the
// layers that are linear with constant weights (pooling, sums of branches, batch norm).
#include <algorithm>

#include "backend.hpp"
#include "epilogue.hpp"
#include "panels.hpp"
#include "parallel.hpp"

namespace relprop::RELPROP_ISA {

namespace {

// Epsilon over a whole panel, in registers from memory to memory: what message_row makes of it
// where no share of the bias is handed down, for half of its instructions.
void epsilon_panel(const Message &m, const float *sums, const float *bias, float *r, float *tally) {
    const float keep = m.rule.bias == BiasMode::exclude ? 0.0f : 1.0f;
    Tally told;
    for (int j = 0; j < panel; j += lanes) {
        const Vec b = bias ? load(bias + j) : Vec{}, kept = keep * b, given = load(r + j);
        const Vec sum = load(sums + j), s = given / stabilize(sum, m.rule.epsilon);
        told.by_bias += kept * s;
        told.by_stabilizer += given - sum * s;
        told.weigh(given);
        store(r + j, s);
    }
    if (tally)
        told.store(tally, bias);
}

void take(const Branch &branch, const float *s, int64_t first, int64_t last) {
    const float *x = branch.x;
    float *out = branch.out;
    if (branch.add)
        for (int64_t i = first; i < last; ++i)
            out[i] += x[i] * s[i];
    else
        for (int64_t i = first; i < last; ++i)
            out[i] = x[i] * s[i];
}

} // namespace

int chunks(int groups, int out) { return groups * panels_of(out); }

void message(const Message &m, int64_t rows, int channels, Stream) {
    const int64_t block = slab / channels > 0 ? slab / channels : 1;
    const bool epsilon = m.rule.kind == RuleKind::epsilon && !m.share;
    parallel_for((rows + block - 1) / block, [&](int64_t task) {
        const int64_t first = task * block, last = first + block < rows ? first + block : rows;
        for (int64_t row = first; row < last && !m.arrived; ++row) {
            if (m.given)
                std::copy_n(m.given + row * m.given_stride, channels, m.r + row * channels);
            const float *z = m.z ? m.z + (m.period ? row % m.period : row) * channels : nullptr;
            int c = 0;
            for (; epsilon && c + panel <= channels; c += panel)
                epsilon_panel(m, z + c, m.bias ? m.bias + c : nullptr, m.r + row * channels + c,
                              tally_of(m, row, c / panel));
            for (; c < channels; c += panel)
                message_row(m, row, channels, c, smaller(panel, channels - c), z ? z + c : nullptr,
                            c / panel);
        }
        for (int i = 0; i < m.branch_count; ++i) {
            const Branch &branch = m.branches[i];
            take(branch, m.r, first * channels, last * channels);
            for (int64_t row = first; branch.sent && row < last; ++row)
                for (int c = 0; c < channels; c += panel)
                    message_row<RuleKind::epsilon>(*branch.sent, row, channels, c,
                                                   smaller(panel, channels - c),
                                                   branch.x + row * channels + c, c / panel);
        }
    });
}

} // namespace relprop::RELPROP_ISA
