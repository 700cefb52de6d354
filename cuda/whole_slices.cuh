// How the group that copies brings slices to shared memory where each is 32 neighbouring channels
// of what one tap reads: nearly all layers' are, and their copies take few instructions. gather.cuh
// copies all others.
#pragma once

#include "arrival.cuh"
#include "gather.cuh"
#include "turn.cuh"

namespace relprop::cuda {

constexpr int most_whole_taps = 32; // bits of a register

// Whether a product's slices are such, and rows of a tile so near to each other that an int holds
// how many floats lie between them.
template <class T> bool has_whole_slices(const Product &p) {
    const TapGrid &grid = p.grid;
    const int64_t of_image = int64_t{grid.size.z} * grid.size.y * grid.size.x;
    const int64_t images = (T::rows + of_image - 1) / of_image + 1;
    return by_fours(p) && p.run % slice == 0 && grid.tap_count <= most_whole_taps &&
           images * grid.from.size() <= INT32_MAX;
}

template <Precision precision, class T> class WholeSliceCopy {
  public:
    __device__ WholeSliceCopy(const Product &p, Memory<precision, T> &memory, const TileAt &at)
        : p_(p), memory_(memory), weights_(p, at), base_(memory.places.from[0]),
          stages_(shared_at(memory.stage)), there_(shared_at(memory.there)),
          done_(shared_at(memory.done)) {
        const int thread = static_cast<int>(threadIdx.x) % T::copiers, first = thread / across;
        k_ = thread % across * 4;
        to_ = place_in_slice(first, k_) * static_cast<int>(sizeof(float));
#pragma unroll
        for (int i = 0; i < rows; ++i) {
            const int row = first + i * down;
            taps_[i] = static_cast<uint32_t>(memory.reads[row].taps);
            from_[i] = taps_[i] != 0 ? static_cast<int>(memory.places.from[row] - base_) : 0;
        }
    }

    // Slices [first, last) of all sources.
    __device__ __forceinline__ void copy(int first, int last) {
        if (p_.grid.tap_count == 1)
            copy_all<false>(first, last);
        else
            copy_all<true>(first, last);
    }

  private:
    static constexpr int across = slice / 4, down = T::copiers / across, rows = T::rows / down;
    static_assert(T::rows % down == 0 && down % 8 == 0); // all rows of a thread have one order

    // Other taps may read the same `again`.
    template <bool again> __device__ __forceinline__ void copy_all(int first, int last) {
        const int taps = p_.grid.tap_count, per_source = slices_of(p_) / p_.sources;
        Turn<T> turn;
        for (int next = first; next < last;) {
            const int source = next / per_source, at = next % per_source;
            int tap = at % taps;
            const float *data = p_.source[source].data + base_ + k_ + at / taps * slice;
            weights_.start(source, at);
            const int end = smaller(next - at + per_source, last);
            for (; next < end; ++next) {
                const float *from = data + memory_.steps[tap];
                const uint32_t bit = uint32_t{1} << tap;
                if (++tap == taps) {
                    tap = 0;
                    data += slice;
                }
                if (turn.time > 0)
                    Arrival(done_, turn.stage).await(turn.time - 1);
                weights_.copy(memory_, turn.stage);
                const SharedAt to =
                    stages_ + turn.stage * static_cast<int>(sizeof(memory_.stage[0])) + to_;
#pragma unroll
                for (int i = 0; i < rows; ++i)
                    copy_async<16, again>(to + i * down * slice * static_cast<int>(sizeof(float)),
                                          from + from_[i], (taps_[i] & bit) != 0);
                Arrival(there_, turn.stage).arrive_with_copies();
                turn.go_on();
            }
        }
    }

    const Product &p_;
    Memory<precision, T> &memory_;
    WeightBulkCopy<precision, T> weights_;
    int64_t base_; // what a tap at 0, 0, 0 reads of the tile's first row
    SharedAt stages_, there_, done_;
    int k_, to_;          // the thread's place in a slice, in bytes of a stage
    int from_[rows];      // of its rows, from the base
    uint32_t taps_[rows]; // that lead into the image
};

} // namespace relprop::cuda
