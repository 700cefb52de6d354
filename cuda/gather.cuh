// What a tile of a product multiplies, slice by slice, on its way to shared memory: pixels are read
// in place through the grid's taps, the weights as pack.cpp lays them.
#pragma once

#include "mma.cuh"
#include "tile.cuh"

namespace relprop::cuda {

// Copies the slices of a product's pixels in their order, `width` floats at a time: 4 where no four
// neighbours of a slice come from two taps and all lie on 16 bytes, 1 elsewhere. A thread copies
// the same place of each slice, of several rows.
template <class T, int width> class PixelCopy {
  public:
    __device__ PixelCopy(const Product &p, const TilePlaces<T::rows> &places)
        : p_(p), places_(places), k_(threadIdx.x % across * width) {}

    // Begins with the first slice of a source.
    __device__ void start(int source) {
        data_ = p_.source[source].data;
        tap_ = 0;
        channel_ = k_;
        find_tap();
    }

    // Copies a slice, and goes on to the next.
    __device__ void copy(float *to) {
#pragma unroll 4
        for (int i = 0; i < T::rows / down; ++i) {
            const int row = i * down + threadIdx.x / across;
            const Pixel &at = places_.at[row];
            const bool held =
                inside(p_.grid.from, {at.z + step_.z, at.y + step_.y, at.x + step_.x});
            copy_async<width * 4>(to + place_in_slice(row, k_),
                                  held ? data_ + (places_.from[row] + offset_) : data_, held);
        }
        channel_ += slice;
        if (channel_ >= p_.run)
            find_tap();
        else
            offset_ += slice;
    }

  private:
    static constexpr int across = slice / width, down = T::threads / across;
    static_assert(T::rows % down == 0);

    // The tap that reads float channel_ of the tap that was.
    __device__ void find_tap() {
        tap_ += channel_ / p_.run;
        channel_ %= p_.run;
        step_ = tap_ < p_.grid.tap_count ? p_.grid.taps[tap_] : Pixel{nowhere, nowhere, nowhere};
        offset_ = row_of(p_.grid.from, 0, step_) * p_.grid.from.channels + channel_;
    }

    const Product &p_;
    const TilePlaces<T::rows> &places_;
    int k_; // the thread's place in a slice
    const float *data_ = nullptr;
    int tap_ = 0, channel_ = 0;
    Pixel step_;
    int64_t offset_ = 0; // of what the tap reads from what one at 0, 0, 0 would
};

// Copies the slices of the weights for a tile's channels.
template <Precision precision, class T> class WeightCopy {
  public:
    // `first`: of the tile among the group's channels.
    __device__ WeightCopy(const Product &p, int group, int first) : p_(p) {
        const int out = p.grid.to.channels / p.grid.groups;
        depth_ = depth_of(p.grid.tap_count, p.run);
        left_ = out - first;
        at_ = (static_cast<int64_t>(group) * out + first) * depth_ + threadIdx.x % across * width;
    }

    __device__ void start(int source) {
        from_ = reinterpret_cast<const Weight<precision> *>(p_.source[source].weights) + at_;
    }

    __device__ void copy(Weight<precision> *to) {
        const int k = threadIdx.x % across * width;
#pragma unroll
        for (int i = 0; i < T::channels / down; ++i) {
            const int row = i * down + threadIdx.x / across;
            const bool held = row < left_;
            copy_async<16>(to + place(row, k), held ? from_ + row * depth_ : from_, held);
        }
        from_ += slice;
    }

  private:
    static constexpr int width = 16 / sizeof(Weight<precision>); // at a time
    static constexpr int across = slice / width, down = T::threads / across;
    static_assert(T::channels % down == 0);

    __device__ static int place(int row, int k) {
        return precision == Precision::bf16 ? row * slice + k : place_in_slice(row, k);
    }

    const Product &p_;
    const Weight<precision> *from_ = nullptr;
    int64_t depth_, at_;
    int left_; // channels from the tile's first on
};

} // namespace relprop::cuda
