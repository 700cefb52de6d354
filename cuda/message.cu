// A rule's message over a whole tensor, where the sums are known without a product: epsilon (the
// forward pass kept z), w_square (its sums depend on the position only), flat (counts), and the
// layers that are linear with constant weights (pooling, sums of branches, batch norm). A warp owns
// one chunk of a row, a lane one channel.
#include "backend.cuh"
#include "epilogue.cuh"
#include "launch.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

constexpr int most_branches = 8; // that one launch takes: they travel with its arguments

struct Whole {
    MessageArguments message;
    Branch branches[most_branches];
    int branch_count;
    int64_t rows;
    int channels;
    Divisor chunks; // of a row, as many as its channels need
};

// `s` is what the lane itself has just written.
__device__ void take(const Branch &branch, int64_t at, float s) {
    const float handed = branch.x[at] * s;
    branch.out[at] = branch.add ? branch.out[at] + handed : handed;
}

template <RuleKind kind> __global__ void message_kernel(const __grid_constant__ Whole p) {
    const Message &m = p.message.message;
    const int64_t row = divided(warp_index(), p.chunks);
    const int64_t chunk = warp_index() - row * p.chunks.by;
    if (row >= p.rows)
        return;
    const int c = static_cast<int>(chunk) * chunk_channels + lane_index();
    Absorbed absorbed;
    bool scarce = false;
    if (c < p.channels) {
        const int64_t z_row = m.period ? row % m.period : row, at = row * p.channels + c;
        const float sum = m.z ? m.z[z_row * p.channels + c] : 0.0f;
        scarce = message_value<kind>(p.message, row, p.channels, c, sum, absorbed);
        for (int i = 0; i < p.branch_count; ++i)
            take(p.branches[i], at, m.r[at]);
    }
    store_chunk(m, row, chunk, absorbed, scarce);
}

} // namespace

// ---- launchers

int chunks(int groups, int out) { return groups * ceil_div(out, chunk_channels); }

void message(const Message &m, int64_t rows, int channels, Stream stream) {
    Whole p{};
    p.message = arguments_of(m);
    p.branch_count = smaller(m.branch_count, most_branches);
    p.rows = rows;
    p.channels = channels;
    p.chunks = divisor_of(chunks(1, channels));
    for (int i = 0; i < p.branch_count; ++i)
        p.branches[i] = m.branches[i];
    with_rule(m.rule.kind, [&](auto kind) {
        RELPROP_LAUNCH_BLOCKS(message_kernel<kind()>, p, blocks_of_warps(rows * p.chunks.by),
                              block_threads, 0, stream);
    });
    for (int i = p.branch_count; i < m.branch_count; ++i)
        multiply(m.branches[i].x, m.r, m.branches[i].out, rows * channels, m.branches[i].add,
                 stream);
}

} // namespace relprop::cuda
