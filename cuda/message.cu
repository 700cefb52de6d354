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

constexpr int most_branches = 4; // that one launch takes: they travel with its arguments

struct Taker {
    Branch branch;
    MessageArguments sent; // where branch.sent
};

struct Whole {
    MessageArguments message;
    Taker takers[most_branches];
    int taker_count;
    int64_t rows;
    int channels;
    Divisor chunks; // of a row, as many as its channels need
};

// A branch takes what is still in registers, and may send it on. All lanes of a warp call it.
template <int width>
__device__ void take(const Taker &taker, const LanePlace &place, const Lanes<width> &s) {
    const Branch &branch = taker.branch;
    Lanes<width> x{}, handed{};
    if (place.real)
        x = load<width>(branch.x + place.at());
    if (place.real && branch.add)
        handed = load<width>(branch.out + place.at());
    for (int i = 0; i < width; ++i) {
        const float product = x.at[i] * s.at[i];
        handed.at[i] = branch.add ? handed.at[i] + product : product;
    }
    if (branch.sent)
        send_on(taker.sent, place, x, handed);
    else if (place.real)
        store(branch.out + place.at(), handed);
}

template <RuleKind kind, int width>
__global__ void message_kernel(const __grid_constant__ Whole p) {
    constexpr int lanes = chunk_channels / width;
    const int first = lane_index() % lanes * width; // channel of the chunk
    const int64_t number = thread_index() / lanes, row = divided(number, p.chunks);
    const int64_t chunk = number - row * p.chunks.by;
    const int c = static_cast<int>(chunk) * chunk_channels + first;
    const LanePlace place{row, p.channels, c, row < p.rows && c < p.channels};
    const Message &m = p.message.message;
    Lanes<width> s{};
    if (!m.arrived) {
        Tally tally;
        const float *r = m.given ? m.given + row * m.given_stride : m.r + row * p.channels;
        MessageLanes<kind, width> own(p.message, place, r + c);
        const uint32_t marked =
            own.finish(p.message, place, own.z, bias_at<width>(m.bias, place), tally);
        store_chunk<lanes>(m, row, chunk, tally, marked << first, row < p.rows);
        s = own.r;
    } else if (place.real) {
        s = load<width>(m.r + place.at());
    }
    for (int i = 0; i < p.taker_count; ++i)
        take(p.takers[i], place, s);
}

} // namespace

// ---- launchers

int chunks(int groups, int out) { return groups * ceil_div(out, chunk_channels); }

void message(const Message &m, int64_t rows, int channels, Stream stream) {
    Whole p{};
    p.message = arguments_of(m);
    p.taker_count = smaller(m.branch_count, most_branches);
    p.rows = rows;
    p.channels = channels;
    p.chunks = divisor_of(chunks(1, channels));
    std::vector<const float *> pointers = {m.r, m.given, m.s_neg, m.z, m.bias, m.share};
    for (int i = 0; i < p.taker_count; ++i) {
        const Branch &branch = m.branches[i];
        p.takers[i] = {branch, {}};
        pointers.insert(pointers.end(), {branch.x, branch.out});
        if (branch.sent) {
            p.takers[i].sent = arguments_of(*branch.sent);
            pointers.push_back(branch.sent->bias);
        }
    }
    with_width(pointers, {channels, m.given_stride}, [&](auto width) {
        const int64_t warps =
            (rows * p.chunks.by + width() - 1) / width(); // each holds so many chunks
        with_rule(m.rule.kind, [&](auto kind) {
            RELPROP_LAUNCH_BLOCKS((message_kernel<kind(), width()>), p, blocks_of_warps(warps),
                                  block_threads, 0, stream);
        });
    });
    for (int i = p.taker_count; i < m.branch_count; ++i) {
        const Branch &branch = m.branches[i];
        multiply(branch.x, m.r, branch.out, rows * channels, branch.add, stream);
        if (branch.sent)
            message(*branch.sent, rows, channels, stream);
    }
}

} // namespace relprop::cuda
