// Checks what the emulator has of CUDA's language: kernels, their threads and memory, copies and
// tensor cores.
#include <cmath>
#include <cstring>

#include "arrival.cuh"
#include "emulator_checks.hpp"
#include "wgmma.cuh"

using namespace relprop;
using namespace relprop::cuda;

namespace {

// ---- kernels

// What tree_kernel does in dynamic shared memory, and without the barrier: whatever comes out, it
// is wrong.
__global__ void hasty_kernel(Arrays a) {
    float *tree = shared_memory<float>();
    const unsigned i = threadIdx.x;
    tree[i] = a.in[blockIdx.x * threads + i];
    for (unsigned half = threads / 2; half > 0; half /= 2)
        if (i < half)
            tree[i] += tree[i + half];
    if (i == 0)
        a.out[blockIdx.x] = tree[0];
}

// Sums of warps, by each kind of exchange; all lanes must come to the same sum.
__global__ void exchange_kernel(Arrays a) {
    const unsigned i = threadIdx.y * blockDim.x + threadIdx.x, lane = i % 32;
    const float own = a.in[i];
    float sum = own;
    for (int by = 16; by > 0; by /= 2)
        sum += __shfl_xor_sync(~0u, sum, by);
    double down = own;
    for (unsigned by = 16; by > 0; by /= 2)
        down += __shfl_down_sync(~0u, down, by);
    const bool same = __shfl_sync(~0u, down, 0) == static_cast<double>(sum);
    const bool first = __shfl_up_sync(~0u, static_cast<int>(lane), 1) == (lane ? int(lane) - 1 : 0);
    const bool half = __shfl_sync(~0u, lane, 3, 16) == lane / 16 * 16 + 3;
    const unsigned odd = __ballot_sync(~0u, lane % 2);
    // The two halves of the warp go apart and meet again.
    const unsigned mask = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
    int rank = 1;
    if (lane < 16)
        for (int by = 8; by > 0; by /= 2)
            rank += __shfl_xor_sync(mask, rank, by);
    __syncwarp();
    const bool apart = rank == (lane < 16 ? 16 : 1);
    const bool votes = odd == 0xAAAAAAAAu && __any_sync(~0u, lane == 7) &&
                       !__any_sync(~0u, lane == 32) && __all_sync(~0u, lane < 32) &&
                       !__all_sync(~0u, lane < 31);
    a.out[i] = same && first && half && apart && votes ? sum : -1.0f;
}

// Which lanes of a warp have the same value, those of a half, or of all.
__global__ void matches_kernel(Arrays a) {
    const unsigned lane = threadIdx.x % 32;
    const bool thirds = __match_any_sync(~0u, static_cast<int>(lane % 3)) == 0x49249249u
                                                                                 << lane % 3;
    const unsigned half = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
    const bool halves = __match_any_sync(half, 7.0) == half;
    const bool alone = __match_any_sync(~0u, a.in[threadIdx.x]) == 1u << lane;
    a.out[threadIdx.x] = thirds && halves && alone ? 1.0f : 0.0f;
}

struct Counters {
    int *sum;
    unsigned long long *least;
    unsigned *bits;
    float *total;
};

__global__ void atomic_kernel(Counters c, int64_t count) {
    if (thread_index() >= count)
        return;
    atomicAdd(c.sum, 1);
    atomicMin(c.least, static_cast<unsigned long long>(100 + thread_index()));
    atomicOr(c.bits, 1u << thread_index() % 32);
    atomicAdd(c.total, 0.5f);
}

// What nobody wrote of dynamic shared memory.
__global__ void unwritten_kernel(Arrays a) {
    a.out[threadIdx.x] = shared_memory<float>()[threadIdx.x];
    __syncthreads();
    shared_memory<float>()[threadIdx.x] = 1.0f; // the next block must not see it
}

// Hands halves of an array to the threads' opposites, the second on its way while the first is
// read; nothing comes to odd places. Whatever the hasty do not wait for is wrong.
template <bool hasty> __global__ void copies_kernel(Arrays a) {
    float *shared = shared_memory<float>(); // [2][threads]
    const unsigned i = threadIdx.x, opposite = threads - 1 - i;
    for (unsigned half = 0; half < 2; ++half) {
        const unsigned at = half * threads + i;
        copy_async<4, true>(shared_at(shared + at), a.in + at, i % 2 == 0);
        close_copies();
    }
    await_copies<hasty ? 2 : 1>();
    __syncthreads();
    a.out[i] = shared[opposite];
    await_copies<0>();
    __syncthreads();
    a.out[threads + i] = shared[threads + opposite];
}

__global__ void open_copy_kernel(Arrays a) {
    copy_async<4, true>(shared_at(shared_memory<float>() + threadIdx.x), a.out, true);
    close_copies();
}

__global__ void crooked_copy_kernel(Arrays a) {
    copy_async<16, false>(shared_at(shared_memory<float>()), a.out + 1, true);
}

constexpr size_t enough_shared = 8192; // for what follows

// Copies weights and multiplies with them, but does not wait for them, or does not show registers.
template <bool weights, bool registers> __global__ void product_kernel(Arrays a) {
    constexpr int pieces = 16, floats = 64;
    float *shared = shared_memory<float>(); // [32][32], and the arrivals of its pieces
    const SharedAt there = shared_at(shared + pieces * floats);
    if (threadIdx.x == 0)
        for (int i = 0; i < pieces; ++i)
            Arrival(there, i).begin(1);
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 0; i < pieces; ++i) {
            Arrival(there, i).arrive_before(floats * 4);
            Arrival(there, i).copy(shared_at(shared + i * floats), a.out, floats * 4);
        }
    if (weights)
        for (int i = 0; i < pieces; ++i)
            Arrival(there, i).await(0);
    __syncthreads();
    if (registers)
        show_registers();
    float sum[16] = {};
    const uint32_t factors[4] = {};
    for (int twice = 0; twice < 2; ++twice)
        multiply_warpgroup_tf32(sum, factors, descriptor_of<128>(shared));
    close_products();
    await_products<0>();
}

// Threads of which some copy what the others add up, through two places that are filled again and
// again. Nobody waits for the whole block.
template <bool hasty> __global__ void pipeline_kernel(Arrays a) {
    constexpr int stages = 2, rounds = 7, half = threads / 2; // as a_pipeline_adds_up has it
    float *shared = shared_memory<float>(); // [stages][half], and what is there and done with
    const SharedAt there = shared_at(shared + stages * half);
    const SharedAt done = there + stages * sizeof(Arrival::Held);
    if (threadIdx.x == 0)
        for (int stage = 0; stage < stages; ++stage) {
            Arrival(there, stage).begin(half);
            Arrival(done, stage).begin(half);
        }
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x) % half;
    if (threadIdx.x >= half) {
        for (int round = 0; round < rounds; ++round) {
            if (!hasty && round >= stages)
                Arrival(done, round % stages).await(round / stages - 1);
            copy_async<4, true>(shared_at(shared + round % stages * half + i),
                                a.in + round * half + i, true);
            Arrival(there, round % stages).arrive_with_copies();
        }
        close_copies();
        await_copies<0>();
    } else {
        float sum = 0.0f;
        for (int round = 0; round < rounds; ++round) {
            Arrival(there, round % stages).await(round / stages);
            sum += shared[round % stages * half + half - 1 - i];
            Arrival(done, round % stages).arrive();
        }
        sync_first<half>();
        a.out[i] = sum;
    }
}

__global__ void half_waits_kernel(Arrays) {
    if (threadIdx.x < 100)
        __syncthreads();
}

__global__ void two_places_kernel(Arrays) {
    if (threadIdx.x < 32)
        __syncthreads();
    else if (threadIdx.x != 40)
        __syncwarp();
}

__global__ void masks_kernel(Arrays) { __syncwarp(threadIdx.x == 5 ? 0x0000FFFFu : ~0u); }

__global__ void stranger_kernel(Arrays) { __shfl_sync(0xFFu << threadIdx.x % 32 / 8 * 8, 1, 31); }

__global__ void beyond_kernel(Arrays a) { a.out[threadIdx.x + 1] = 0.0f; }

__global__ void not_global_kernel(Arrays a) {
    a.out[threadIdx.x] = __ldcg(shared_memory<float>() + threadIdx.x);
}

__global__ void lonely_kernel(Arrays, int64_t) { __syncthreads(); }

// ---- checks

bool grids_are_covered() {
    for (const size_t count : {1, 255, 256, 257, 1000}) {
        const Floats in(ascending(count)), out(count);
        RELPROP_LAUNCH(twice_kernel, (Arrays{in.data(), out.data()}), static_cast<int64_t>(count),
                       nullptr);
        const std::vector<float> got = out.read();
        for (size_t i = 0; i < count; ++i)
            if (got[i] != 2.0f * static_cast<float>(i))
                return false;
    }
    RELPROP_LAUNCH(twice_kernel, (Arrays{nullptr, nullptr}), 0, nullptr);
    RELPROP_LAUNCH_BLOCKS(tree_kernel, (Arrays{nullptr, nullptr}), dim3(0), threads, 0, nullptr);
    return true;
}

std::vector<float> sums(void (*kernel)(Arrays), size_t shared_bytes) {
    constexpr int blocks = 3;
    const Floats in(ascending(blocks * threads)), out(blocks);
    RELPROP_LAUNCH_BLOCKS(kernel, (Arrays{in.data(), out.data()}), blocks, threads, shared_bytes,
                          nullptr);
    return out.read();
}

const std::vector<float> right_sums = {32640.0f, 98176.0f, 163712.0f};

bool barriers_hold() { return sums(tree_kernel, 0) == right_sums; }

bool a_missing_barrier_shows() { return sums(hasty_kernel, threads * sizeof(float)) != right_sums; }

template <bool hasty> bool copied_right() {
    const Floats in(ascending(2 * threads)), out(2 * threads);
    RELPROP_LAUNCH_BLOCKS(copies_kernel<hasty>, (Arrays{in.data(), out.data()}), 1, threads,
                          2 * threads * sizeof(float), nullptr);
    const std::vector<float> got = out.read();
    for (size_t i = 0; i < 2 * threads; ++i) {
        const size_t from = i / threads * threads + threads - 1 - i % threads;
        if (got[i] != (from % 2 == 0 ? static_cast<float>(from) : 0.0f))
            return false;
    }
    return true;
}

bool copies_are_waited_for() { return copied_right<false>(); }

bool a_missing_wait_shows() { return !copied_right<true>(); }

bool products_are_shown_all() {
    const Floats memory(threads);
    RELPROP_LAUNCH_BLOCKS((product_kernel<true, true>), (Arrays{nullptr, memory.data()}), 2,
                          threads, enough_shared, nullptr);
    RELPROP_CHECK(cudaDeviceSynchronize());
    return true;
}

bool a_pipeline_adds_up() {
    constexpr size_t half = threads / 2, rounds = 7;
    const Floats in(ascending(rounds * half)), out(half);
    RELPROP_LAUNCH_BLOCKS(pipeline_kernel<false>, (Arrays{in.data(), out.data()}), 2, threads,
                          enough_shared, nullptr);
    const std::vector<float> got = out.read();
    for (size_t i = 0; i < half; ++i)
        if (got[i] !=
            static_cast<float>(rounds * (half - 1 - i) + half * rounds * (rounds - 1) / 2))
            return false;
    return true;
}

// A float's last bit below 1 is 2^-23; what lies more than two bits below that is lost before terms
// are added, what lies below the last bit itself behind it.
bool tensor_cores_cut_sums_off() {
    const auto sum = [](double begun, double factor) {
        double total[1] = {begun}, a[8], b[8][1];
        for (int i = 0; i < 8; ++i)
            a[i] = factor, b[i][0] = 1.0;
        emulated::add_lined_up(total, a, b);
        return emulated::towards_zero(total[0]);
    };
    const float next = std::nextafter(1.0f, 2.0f);
    return sum(1.0, std::ldexp(1.0, -26)) == 1.0f &&
           sum(1.0, std::ldexp(1.0, -25)) == std::nextafter(next, 2.0f) &&
           sum(1.0, std::ldexp(0.75, -25)) == 1.0f &&
           sum(1.0, std::ldexp(1.75, -25)) == std::nextafter(next, 2.0f) &&
           sum(-1.0, std::ldexp(1.0, -26)) == -1.0f && sum(0.0, 0.0) == 0.0f &&
           std::isinf(sum(3e38, 3e38)) && std::isnan(sum(std::nan(""), 1.0));
}

bool lanes_exchange() {
    const Floats in(ascending(64)), out(64);
    RELPROP_LAUNCH_BLOCKS(exchange_kernel, (Arrays{in.data(), out.data()}), 1, dim3(16, 4), 0,
                          nullptr);
    const std::vector<float> got = out.read();
    for (size_t i = 0; i < 64; ++i)
        if (got[i] != (i < 32 ? 496.0f : 1520.0f))
            return false;
    return true;
}

bool lanes_find_their_like() {
    const Floats in(ascending(64)), out(64);
    RELPROP_LAUNCH_BLOCKS(matches_kernel, (Arrays{in.data(), out.data()}), 1, 64, 0, nullptr);
    return out.read() == std::vector<float>(64, 1.0f);
}

bool atomics_count() {
    const Floats memory(std::vector<float>(8, 0.0f));
    float *at = memory.data();
    const Counters c{reinterpret_cast<int *>(at), reinterpret_cast<unsigned long long *>(at + 2),
                     reinterpret_cast<unsigned *>(at + 4), at + 5};
    RELPROP_CHECK(cudaMemset(c.least, 0xFF, sizeof *c.least));
    RELPROP_LAUNCH(atomic_kernel, c, 300, nullptr);
    const std::vector<float> got = memory.read();
    int sum;
    unsigned long long least;
    unsigned bits;
    std::memcpy(&sum, &got[0], sizeof sum);
    std::memcpy(&least, &got[2], sizeof least);
    std::memcpy(&bits, &got[4], sizeof bits);
    return sum == 300 && least == 100 && bits == ~0u && got[5] == 150.0f;
}

bool unwritten_is_nan() {
    const Floats out(1024);
    for (const float value : out.read())
        if (!std::isnan(value))
            return false;
    const Floats zeros(std::vector<float>(1024, 0.0f));
    RELPROP_LAUNCH_BLOCKS(unwritten_kernel, (Arrays{nullptr, zeros.data()}), 2, 1024, 100 * 1024,
                          nullptr);
    for (const float value : zeros.read())
        if (!std::isnan(value))
            return false;
    return true;
}

const Check checks[] = {
    {"grids are covered", grids_are_covered},
    {"barriers hold", barriers_hold},
    {"a missing barrier shows", a_missing_barrier_shows},
    {"copies are waited for", copies_are_waited_for},
    {"a missing wait shows", a_missing_wait_shows},
    {"products are shown all", products_are_shown_all},
    {"a pipeline adds up", a_pipeline_adds_up},
    {"tensor cores cut sums off", tensor_cores_cut_sums_off},
    {"lanes exchange", lanes_exchange},
    {"lanes find their like", lanes_find_their_like},
    {"atomics count", atomics_count},
    {"unwritten is NaN", unwritten_is_nan},
};

// ---- what ends the program

struct Death {
    const char *name;
    void (*kernel)(Arrays);
};

const Death deaths[] = {
    {"half_waits", half_waits_kernel},
    {"two_places", two_places_kernel},
    {"masks", masks_kernel},
    {"stranger", stranger_kernel},
    {"beyond", beyond_kernel},
    {"not_global", not_global_kernel},
    {"open_copy", open_copy_kernel},
    {"crooked_copy", crooked_copy_kernel},
    {"hidden_weights", product_kernel<false, true>},
    {"hidden_registers", product_kernel<true, false>},
    {"hasty_pipeline", pipeline_kernel<true>},
};

int die(const std::string &name) {
    const Floats memory(threads), in(ascending(4 * threads));
    if (name == "lonely")
        RELPROP_LAUNCH(lonely_kernel, none, 1, nullptr);
    for (const Death &death : deaths)
        if (name == death.name)
            RELPROP_LAUNCH_BLOCKS(death.kernel, (Arrays{in.data(), memory.data()}), 1, threads,
                                  enough_shared, nullptr);
    return 1;
}

} // namespace

int main(int count, char **arguments) { return run(checks, die, count, arguments); }
