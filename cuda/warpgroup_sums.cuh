// The sums of a tile while they grow, in the registers of its warpgroups. Weights are read where
// they lie by the tensor cores; a lane gives the pixels' factors, rounded to the precision that is
// asked for, and may go on to the next while those are multiplied.
#pragma once

#include "factors.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace relprop::cuda {

// How a tile's operands come to shared memory: by slices of both, or by patches.cuh.
enum class TileWay { slices, patches };

// rows: pixels; channels: of the destination. The block's warpgroups compute what `groups_down` by
// `groups_across` cut of it; one more copies for them. `in_parts`: the sums are made of parts,
// which several blocks may share. `speed`: of the tensor cores' rate, as it is believed; what tiles
// are chosen by. `blocks` are to fit a multiprocessor.
template <int rows_, int channels_, int groups_down_, int groups_across_, int stages_,
          bool in_parts_, int speed_, int blocks_ = 1>
struct WarpgroupTile {
    static constexpr int rows = rows_, channels = channels_;
    static constexpr int groups_across = groups_across_;
    static constexpr int threads =
        groups_down_ * groups_across_ * warpgroup_threads; // that compute
    static constexpr int copiers = warpgroup_threads;      // behind them
    static constexpr int warps = threads / 32;
    static constexpr int stages = stages_, speed = speed_, blocks = blocks_;
    static constexpr int group_rows = rows / groups_down_;
    static constexpr int group_channels = channels / groups_across;
    static constexpr bool by_warpgroups = true, in_parts = in_parts_;
    static constexpr TileWay way = TileWay::slices;
    __host__ __device__ static constexpr int pixel_of(int row) { return row; } // in shared memory
    template <Precision> static constexpr bool sets_aside = in_parts_;
    __device__ static void sync() { sync_first<threads>(); }

    // Registers of a thread: of those that a block has at first, most go to those that compute.
    static constexpr int all_registers = 65536 / blocks / (threads + copiers) / 8 * 8;
    static constexpr int at_first = all_registers < 248 ? all_registers : 248;
    static constexpr int of_copiers = rows > 128 ? 88 : 72; // enough for what they know of rows
    static constexpr int left = (at_first * (threads + copiers) - of_copiers * copiers) / threads;
    static constexpr int of_computing = left < 240 ? left / 8 * 8 : 240;

    static constexpr int rows_at_once = blocks > 1 ? 2 : 4; // see finish.cuh

    // Of an instruction, whose sums must fit what a thread has at first.
    static constexpr int most_columns = at_first < 100 ? 64 : at_first < 160 ? 128 : 256;
    static constexpr int columns = group_channels < most_columns ? group_channels : most_columns;
    static_assert(group_rows % warpgroup_rows == 0 && group_channels % columns == 0);
};

// What a lane gives to the products of 64 rows: those of one slice, of half a slice in float32.
template <Precision> struct GroupFactors;

template <> struct GroupFactors<Precision::tf32> {
    static constexpr int instructions = 4;
    uint32_t value[instructions][4];

    __device__ void set(int half, const float4 &upper, const float4 &lower) {
        const Four<Precision::tf32> u(upper), l(lower);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            uint32_t (&to)[4] = value[half * 2 + i];
            to[0] = u.value[2 * i];
            to[1] = l.value[2 * i];
            to[2] = u.value[2 * i + 1];
            to[3] = l.value[2 * i + 1];
        }
    }
};

template <> struct GroupFactors<Precision::float32> {
    static constexpr int parts = 3;
    uint32_t value[parts][4];

    __device__ void set(int, const float4 &upper, const float4 &lower) {
        const ThreeParts u(upper), l(lower);
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            value[part][0] = u.pair[part][0];
            value[part][1] = l.pair[part][0];
            value[part][2] = u.pair[part][1];
            value[part][3] = l.pair[part][1];
        }
    }
};

template <> struct GroupFactors<Precision::bf16> {
    static constexpr int instructions = 2;
    uint32_t value[instructions][4];

    __device__ void set(int half, const float4 &upper, const float4 &lower) {
        const Four<Precision::bf16> u(upper), l(lower);
        uint32_t (&to)[4] = value[half];
        to[0] = u.pair[0];
        to[1] = l.pair[0];
        to[2] = u.pair[1];
        to[3] = l.pair[1];
    }
};

template <Precision precision, class T> class WarpgroupSums {
  public:
    using Weight = WeightPart<precision, T>;

    // Slices whose products may be under way while the next one's factors are read, where registers
    // hold a second set of them; elsewhere other groups multiply meanwhile. Float32 takes the sums
    // of each half of a slice at once: see multiply_half().
    static constexpr bool in_runs = precision == Precision::float32;
    static constexpr int held = T::rows * T::channels / T::threads; // by a thread
    static constexpr int factors_held = T::group_rows / warpgroup_rows * 16, others = 45;
    static constexpr bool second_set_fits = held + 2 * factors_held + others <= T::of_computing;
    static constexpr int under_way = in_runs || !second_set_fits ? 0 : 1;

    __device__ WarpgroupSums() {
        const int group = threadIdx.x / warpgroup_threads;
        row_ = group / T::groups_across * T::group_rows +
               threadIdx.x % warpgroup_threads / 32 * 16 + threadIdx.x % 32 / 4;
        channel_ = group % T::groups_across * T::group_channels;
        lane_ = threadIdx.x % 4;
        read_from(0);
    }

    // Factors are read of pixels that lie so far behind the tile's own.
    __device__ __forceinline__ void read_from(int shift) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
            reads_[half] = place_in_slice(T::pixel_of(row_) + shift, lane_ * 8 + half * 4);
    }

    // Begins to add the products of one slice: with the other `set` of factors than the slice
    // before. They all are there after finish().
    template <int set>
    __device__ __forceinline__ void add(const float *pixels, const Weight *weights) {
        GroupFactors<precision>(&factors)[down] = factors_[under_way == 0 ? 0 : set];
        if constexpr (in_runs) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                read_factors(pixels, half, factors);
                show_registers();
                multiply_half(factors, weights, half);
                close_products();
                await_products<0>();
                take_run();
            }
        } else {
            read_factors(pixels, 0, factors);
            read_factors(pixels, 1, factors);
            show_registers();
            multiply(factors, weights);
            close_products();
            await_products<under_way>();
        }
    }

    __device__ __forceinline__ void finish() { await_products<0>(); }

    // Writes them to where a tile's sums lie, or adds them to those there, and begins anew.
    __device__ __forceinline__ void leave(float *to, bool adds) {
        each([&](float &sum, int number) {
            float &total = to[number * T::threads + threadIdx.x];
            total = adds ? total + sum : sum;
            sum = 0.0f;
        });
    }

    // Becomes the sum of some tiles' that were left, one behind the other, perhaps by other
    // multiprocessors: what is volatile is not read from this one's own cache.
    __device__ __forceinline__ void take(const volatile float *from, int tiles) {
        for (int tile = 0; tile < tiles; ++tile, from += T::rows * T::channels)
            each([&](float &sum, int number) {
                const float of_tile = from[number * T::threads + threadIdx.x];
                sum = tile > 0 ? sum + of_tile : of_tile;
            });
    }

    // Writes them to shared memory: [rows][apart].
    __device__ __forceinline__ void store(float *to, int apart) const {
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int k = 0; k < sums_at_once; k += 4) {
                    float *at = to + (row_ + i * warpgroup_rows) * apart + channel_ +
                                j * T::columns + k * 2 + lane_ * 2;
                    const float *sum = sums_[i][j] + k;
                    *reinterpret_cast<float2 *>(at) = {sum[0], sum[1]};
                    *reinterpret_cast<float2 *>(at + 8 * apart) = {sum[2], sum[3]};
                }
    }

  private:
    static constexpr int down = T::group_rows / warpgroup_rows;
    static constexpr int across = T::group_channels / T::columns;
    static constexpr int sums_at_once = T::columns / 2; // of a lane, in one instruction
    static constexpr int row_bytes = slice * static_cast<int>(sizeof(Weight));

    __device__ __forceinline__ void read_factors(const float *pixels, int half,
                                                 GroupFactors<precision> (&factors)[down]) const {
        const float *from = pixels + reads_[half]; // pixels that differ by eights have one order
#pragma unroll
        for (int i = 0; i < down; ++i) {
            const float *at = from + T::pixel_of(i * warpgroup_rows) * slice;
            factors[i].set(half, *reinterpret_cast<const float4 *>(at),
                           *reinterpret_cast<const float4 *>(at + 8 * slice));
        }
    }

    // Names what an instruction multiplies of the weights: 32 bytes of each row.
    __device__ static __forceinline__ uint64_t part_at(uint64_t weights, int instruction) {
        return weights + static_cast<uint64_t>(instruction * 32 / 16);
    }

    __device__ __forceinline__ uint64_t weights_at(const Weight *weights, int j) const {
        return descriptor_of<row_bytes>(weights + (channel_ + j * T::columns) * slice);
    }

    // Calls body(sum, its number).
    template <class Body> __device__ __forceinline__ void each(const Body &body) {
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int k = 0; k < sums_at_once; ++k)
                    body(sums_[i][j][k], (i * across + j) * sums_at_once + k);
    }

    // In TF32 and bfloat16.
    __device__ __forceinline__ void multiply(const GroupFactors<precision> (&factors)[down],
                                             const Weight *weights) {
#pragma unroll
        for (int k = 0; k < GroupFactors<precision>::instructions; ++k)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int i = 0; i < down; ++i) {
                    const uint64_t part = part_at(weights_at(weights, j), k);
                    if constexpr (precision == Precision::bf16)
                        multiply_warpgroup_bf16(sums_[i][j], factors[i].value[k], part);
                    else
                        multiply_warpgroup_tf32(sums_[i][j], factors[i].value[k], part);
                }
    }

    // Tensor cores cut sums off instead of rounding them, which would add up over thousands of
    // products: each run of 16 starts from zero, with its smallest parts, and joins the others by
    // an addition that rounds. What is left out is below a float's last bit: a factor's second part
    // is at most 2^-9 of it, its third 2^-18.
    __device__ __forceinline__ void
    multiply_half(const GroupFactors<Precision::float32> (&factors)[down], const Weight *weights,
                  int half) {
        constexpr int pairs = 6;
        constexpr int of_pixel[pairs] = {2, 0, 1, 1, 0, 0}, of_weight[pairs] = {0, 2, 1, 0, 1, 0};
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int p = 0; p < pairs; ++p) {
                    const uint64_t part =
                        part_at(weights_at(weights + of_weight[p] * T::channels * slice, j), half);
                    if (p == 0)
                        begin_warpgroup_bf16(run_[i][j], factors[i].value[of_pixel[p]], part);
                    else
                        multiply_warpgroup_bf16(run_[i][j], factors[i].value[of_pixel[p]], part);
                }
    }

    __device__ __forceinline__ void take_run() {
#pragma unroll
        for (int i = 0; i < down; ++i)
#pragma unroll
            for (int j = 0; j < across; ++j)
#pragma unroll
                for (int k = 0; k < sums_at_once; ++k)
                    sums_[i][j][k] += run_[i][j][k];
    }

    int row_, channel_; // the lane's first row, its group's first channel
    int lane_;          // of the four that hold one row
    int reads_[2];      // where its first row's factors lie in a slice, of each half
    float sums_[down][across][sums_at_once] = {};
    float run_[in_runs ? down : 1][in_runs ? across : 1][in_runs ? sums_at_once : 1];
    GroupFactors<precision> factors_[1 + under_way][down];
};

} // namespace relprop::cuda
