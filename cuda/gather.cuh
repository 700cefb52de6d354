// What a tile of a product multiplies, slice by slice, on its way to shared memory: pixels are read
// in place through the grid's taps, the weights as pack.cpp lays them.
#pragma once

#include <type_traits>

#include "mma.cuh"
#include "product_parts.hpp"
#include "tile.cuh"
#include "tiles.cuh"
#include "warpgroup_order.hpp"

namespace relprop::cuda {

// Copies the slices of a product's pixels in their order, `width` floats at a time: 4 where no four
// neighbours of a slice come from two taps and all lie on 16 bytes, 1 elsewhere. A thread copies
// the same place of each slice, of several rows.
template <class T, int width> class PixelCopy {
  public:
    // Of a memory that find_tile has filled.
    template <class Memory>
    __device__ PixelCopy(const Product &p, const Memory &memory)
        : p_(p), places_(memory.places), reads_(memory.reads), steps_(memory.steps),
          k_(threadIdx.x % T::copiers % across * width),
          taps_first_(taps_first(p.grid.tap_count, p.run)) {}

    // Begins with a slice of a source.
    __device__ void start(int source, int at) {
        data_ = p_.source[source].data;
        tap_ = taps_first_ ? at % p_.grid.tap_count : 0;
        channel_ = k_ + (taps_first_ ? at / p_.grid.tap_count : at) * slice;
        find_tap();
    }

    // Copies a slice, and goes on to the next.
    __device__ void copy(float *to) {
        const uint64_t tap = uint64_t{1} << tap_ % most_marked_taps;
        const auto marked = [&](const RowRead &read, int) { return (read.taps & tap) != 0; };
        if (p_.grid.tap_count == 1 && width == 4)
            copy_rows<false>(to, marked);
        else if (tap_ < most_marked_taps)
            copy_rows<true>(to, marked);
        else
            copy_rows<true>(to, [&](const RowRead &, int row) {
                return inside(p_.grid.from, moved(places_.at[row], {1, 1, 1}, step_of_tap()));
            });
        if (taps_first_) {
            if (++tap_ == p_.grid.tap_count) {
                tap_ = 0;
                channel_ += slice;
            }
            find_source();
            return;
        }
        channel_ += slice;
        if (channel_ >= p_.run)
            find_tap();
        else
            from_ += slice;
    }

  private:
    static constexpr int across = slice / width, down = T::copiers / across;
    static constexpr int rows = T::rows / down; // that a thread copies
    static constexpr int at_once =
        rows < 4 ? rows : 4; // whose places are read before any is copied
    static_assert(T::rows % down == 0 && rows % at_once == 0);

    // held(read, row): whether the tap leads from the row's pixel into the image. Other taps may
    // read the same `again`.
    template <bool again, class Held>
    __device__ __forceinline__ void copy_rows(float *to, const Held &held) {
        const char *from = reinterpret_cast<const char *>(from_);
        const SharedAt there = shared_at(to);
        const int first = static_cast<int>(threadIdx.x) % T::copiers / across;
#pragma unroll(width == 4 ? rows / at_once : 1)
        for (int i = 0; i < rows; i += at_once) {
            RowRead reads[at_once];
#pragma unroll
            for (int j = 0; j < at_once; ++j)
                reads[j] = reads_[first + (i + j) * down];
#pragma unroll
            for (int j = 0; j < at_once; ++j) {
                const int row = first + (i + j) * down;
                copy_async<width * 4, again || width == 1>(
                    there + place_in_slice(row, k_) * static_cast<int>(sizeof(float)),
                    from + reads[j].from, held(reads[j], row));
            }
        }
    }

    // The tap that reads float channel_ of the tap that was.
    __device__ void find_tap() {
        if (!taps_first_) {
            tap_ += channel_ / p_.run;
            channel_ %= p_.run;
        }
        find_source();
    }

    __device__ Pixel step_of_tap() const {
        return tap_ < p_.grid.tap_count ? p_.grid.taps[tap_] : Pixel{nowhere, nowhere, nowhere};
    }

    __device__ void find_source() {
        int64_t step = 0;
        if (tap_ < most_marked_taps)
            step = tap_ < p_.grid.tap_count ? steps_[tap_] : 0;
        else if (tap_ < p_.grid.tap_count)
            step = step_of(p_.grid, tap_);
        from_ = data_ + step + channel_;
    }

    const Product &p_;
    const TilePlaces<T::rows> &places_;
    const RowRead (&reads_)[T::rows];
    const int64_t (&steps_)[most_marked_taps];
    int k_; // the thread's place in a slice
    bool taps_first_;
    const float *data_ = nullptr;
    const float *from_ = nullptr; // what the tap reads of a pixel at 0, 0, 0; perhaps outside
    int tap_ = 0, channel_ = 0;
};

// Copies the slices of the weights for a tile's channels, as warps read them.
template <Precision precision, class T> class WeightCopy {
  public:
    __device__ WeightCopy(const Product &p, const TileAt &at) : p_(p) {
        const int out = p.grid.to.channels / p.grid.groups;
        depth_ = depth_of(p.grid.tap_count, p.run);
        left_ = out - at.first;
        at_ = (static_cast<int64_t>(at.group) * out + at.first) * depth_ +
              threadIdx.x % across * width;
    }

    // Begins with a slice of a source.
    __device__ void start(int source, int at) {
        from_ = reinterpret_cast<const Weight<precision> *>(p_.source[source].weights) + at_ +
                static_cast<int64_t>(at) * slice;
    }

    // Copies a slice, and goes on to the next.
    __device__ void copy(Memory<precision, T> &memory, int stage) {
        const SharedAt to = shared_at(memory.stage[stage].weights[0]);
        const int k = threadIdx.x % across * width;
#pragma unroll
        for (int i = 0; i < ceil_div(T::channels, down); ++i) {
            const int row = i * down + threadIdx.x / across;
            if (T::channels % down != 0 && row >= T::channels)
                break;
            const bool held = row < left_;
            copy_async<16, false>(to + place(row, k) * static_cast<int>(sizeof(Weight<precision>)),
                                  held ? from_ + row * depth_ : from_, held);
        }
        from_ += slice;
    }

  private:
    static constexpr int width = 16 / sizeof(Weight<precision>); // at a time
    static constexpr int across = slice / width, down = T::copiers / across;

    __device__ static int place(int row, int k) {
        if constexpr (precision == Precision::bf16)
            return row * slice + k;
        else
            return place_in_slice(row, k);
    }

    const Product &p_;
    const Weight<precision> *from_ = nullptr;
    int64_t depth_, at_;
    int left_; // channels from the tile's first on
};

// The same as warpgroups read them: they lie as shared memory holds them, a slice of all channels
// after the other, and one thread has the copy engine bring them.
template <Precision precision, class T> class WeightBulkCopy {
  public:
    __device__ WeightBulkCopy(const Product &p, const TileAt &at) : p_(p) {
        const int out = p.grid.to.channels / p.grid.groups;
        const int slices = static_cast<int>(depth_of(p.grid.tap_count, p.run) / slice);
        of_slice_ = held_channels(out) * slice;
        at_ = static_cast<int64_t>(at.group) * slices * parts * of_slice_ + at.first * slice;
        bytes_ = smaller(T::channels, held_channels(out) - at.first) * slice *
                 static_cast<int>(sizeof(WeightPart<precision, T>));
    }

    __device__ void start(int source, int at) {
        from_ = reinterpret_cast<const WeightPart<precision, T> *>(p_.source[source].weights) +
                at_ + static_cast<int64_t>(at) * parts * of_slice_;
    }

    template <class Memory> __device__ void copy(Memory &memory, int stage) {
        if (threadIdx.x % T::copiers == 0) {
            Arrival there(shared_at(memory.there), stage);
            there.arrive_before(parts * bytes_);
#pragma unroll
            for (int part = 0; part < parts; ++part)
                there.copy(shared_at(memory.stage[stage].weights[part]), from_ + part * of_slice_,
                           bytes_);
        }
        from_ += parts * of_slice_;
    }

  private:
    static constexpr int parts = parts_of<precision, T>;

    const Product &p_;
    const WeightPart<precision, T> *from_ = nullptr;
    int64_t at_;
    int of_slice_, bytes_; // weights of a slice of all channels; what the tile takes of it
};

// Copies slices [first, last) of all sources, pixels and weights, to one stage after the other.
template <Precision precision, class T, int width> class SliceCopy {
  public:
    __device__ SliceCopy(const Product &p, Memory<precision, T> &memory, const TileAt &at,
                         int first, int last)
        : memory_(memory), pixels_(p, memory), weights_(p, at),
          per_source_(slices_of(p) / p.sources), next_(first), last_(last) {}

    __device__ bool left() const { return next_ < last_; }

    // Begins to copy the next slice.
    __device__ void copy(int stage) {
        if (of_source_ == 0) {
            const int source = next_ / per_source_, at = next_ % per_source_;
            pixels_.start(source, at);
            weights_.start(source, at);
            of_source_ = per_source_ - at;
        }
        weights_.copy(memory_, stage);
        pixels_.copy(memory_.stage[stage].pixels);
        --of_source_;
        ++next_;
    }

  private:
    Memory<precision, T> &memory_;
    PixelCopy<T, width> pixels_;
    std::conditional_t<T::by_warpgroups, WeightBulkCopy<precision, T>, WeightCopy<precision, T>>
        weights_;
    int per_source_, next_, last_;
    int of_source_ = 0; // slices left of the source that is being copied
};

} // namespace relprop::cuda
