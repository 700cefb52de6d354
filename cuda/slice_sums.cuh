// How those threads of a block that compute go through its slices, as the others bring them.
#pragma once

#include "arrival.cuh"
#include "turn.cuh"
#include "warpgroup_sums.cuh"

namespace relprop::cuda {

// Where a slice's factors are read: beside its weights.
template <class Memory> class SlicePixels {
  public:
    __device__ SlicePixels(Memory &memory) : memory_(memory) {}
    template <class Sums> __device__ __forceinline__ const float *begin(Sums &, int stage) {
        return memory_.stage[stage].pixels;
    }
    __device__ __forceinline__ void end() {}

  private:
    Memory &memory_;
};

// Adds slices, by a thread of those that compute. Pixels says where a slice's factors are, and is
// told when they have been read.
template <Precision precision, class T, class Memory, class Pixels> class SliceSums {
  public:
    __device__ SliceSums(Memory &memory, const Pixels &pixels)
        : memory_(memory), there_(shared_at(memory.there)), done_(shared_at(memory.done)),
          pixels_(pixels) {}

    __device__ __forceinline__ void add(int count) {
        for (; count > 1; count -= 2) {
            add_one<0>();
            add_one<1>();
        }
        if (count > 0)
            add_one<0>();
        sums.finish();
        if (under_way > 0 && read_ >= 0)
            Arrival(done_, read_).arrive_as_warp();
        read_ = -1;
    }

    WarpgroupSums<precision, T> sums;

  private:
    static constexpr int under_way = WarpgroupSums<precision, T>::under_way;

    template <int set> __device__ __forceinline__ void add_one() {
        Arrival(there_, turn_.stage).await(turn_.time);
        const float *pixels = pixels_.begin(sums, turn_.stage);
        sums.template add<set>(pixels, memory_.stage[turn_.stage].weights[0]);
        pixels_.end();
        if (under_way == 0)
            Arrival(done_, turn_.stage).arrive_as_warp();
        else if (read_ >= 0)
            Arrival(done_, read_).arrive_as_warp();
        read_ = turn_.stage;
        turn_.go_on();
    }

    Memory &memory_;
    SharedAt there_, done_;
    Pixels pixels_;
    Turn<T> turn_;
    int read_ = -1; // the stage that the tensor cores may still be reading
};

} // namespace relprop::cuda
