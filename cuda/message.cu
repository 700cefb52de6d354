// A rule's message over a whole tensor, where the sums are known without a product: epsilon (the
// forward pass kept z), w_square (its sums depend on the position only), flat (counts), and the
// layers that are linear with constant weights (pooling, sums of branches, batch norm). A lane
// owns one channel of a row or four, as many lanes as that takes a chunk.
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

// A branch takes what is still in registers.
template <int width> __device__ void take(const Branch &branch, int64_t at, const Lanes<width> &s) {
    const Lanes<width> x = load<width>(branch.x + at);
    Lanes<width> handed{};
    if (branch.add)
        handed = load<width>(branch.out + at);
    for (int i = 0; i < width; ++i) {
        const float product = x.at[i] * s.at[i];
        handed.at[i] = branch.add ? handed.at[i] + product : product;
    }
    store(branch.out + at, handed);
}

template <RuleKind kind, int width>
__global__ void message_kernel(const __grid_constant__ Whole p) {
    constexpr int lanes = chunk_channels / width;
    const int first = lane_index() % lanes * width; // channel of the chunk
    const int64_t number = thread_index() / lanes, row = divided(number, p.chunks);
    const int64_t chunk = number - row * p.chunks.by;
    const int c = static_cast<int>(chunk) * chunk_channels + first;
    Absorbed absorbed;
    const bool real = row < p.rows && c < p.channels;
    MessageLanes<kind, width> own(p.message, row, p.channels, c, real);
    const uint32_t marked = own.finish(p.message, row, p.channels, c, real, own.z, absorbed);
    if (real)
        for (int i = 0; i < p.branch_count; ++i)
            take(p.branches[i], row * p.channels + c, own.r);
    store_chunk<lanes>(p.message.message, row, chunk, absorbed, marked << first, row < p.rows);
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
    std::vector<const float *> pointers = {m.r, m.s_neg, m.z, m.bias, m.share};
    for (int i = 0; i < p.branch_count; ++i)
        pointers.insert(pointers.end(), {p.branches[i].x, p.branches[i].out});
    with_width(pointers, {channels}, [&](auto width) {
        const int64_t warps =
            (rows * p.chunks.by + width() - 1) / width(); // each holds so many chunks
        with_rule(m.rule.kind, [&](auto kind) {
            RELPROP_LAUNCH_BLOCKS((message_kernel<kind(), width()>), p, blocks_of_warps(warps),
                                  block_threads, 0, stream);
        });
    });
    for (int i = p.branch_count; i < m.branch_count; ++i)
        multiply(m.branches[i].x, m.r, m.branches[i].out, rows * channels, m.branches[i].add,
                 stream);
}

} // namespace relprop::cuda
