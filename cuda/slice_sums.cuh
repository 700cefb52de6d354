// How those threads of a block that compute go through its slices, as the others bring them.
#pragma once

#include "arrival.cuh"
#include "turn.cuh"
#include "warpgroup_sums.cuh"

namespace relprop::cuda {

// Where a slice's factors are read and its weights lie: beside each other.
template <class Memory> class SliceOperands {
  public:
    __device__ SliceOperands(Memory &memory) : memory_(memory) {}
    template <class Sums> __device__ __forceinline__ const float *pixels(Sums &, int stage) {
        return memory_.stage[stage].pixels;
    }
    __device__ __forceinline__ const auto *weights(int stage) {
        return memory_.stage[stage].weights[0];
    }
    __device__ __forceinline__ void read() {}

  private:
    Memory &memory_;
};

// Adds slices, by a thread of those that compute. Operands say where a slice's are, and are told
// when its factors have been read.
template <Precision precision, class T, class Operands> class SliceSums {
  public:
    template <class Memory>
    __device__ SliceSums(Memory &memory, const Operands &operands)
        : there_(shared_at(memory.there)), done_(shared_at(memory.done)), operands_(operands) {}

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
        const float *pixels = operands_.pixels(sums, turn_.stage);
        sums.template add<set>(pixels, operands_.weights(turn_.stage));
        operands_.read();
        if (under_way == 0)
            Arrival(done_, turn_.stage).arrive_as_warp();
        else if (read_ >= 0)
            Arrival(done_, read_).arrive_as_warp();
        read_ = turn_.stage;
        turn_.go_on();
    }

    SharedAt there_, done_;
    Operands operands_;
    Turn<T> turn_;
    int read_ = -1; // the stage that the tensor cores may still be reading
};

} // namespace relprop::cuda
