// Packed weights. They are kept once for all Plans of the process that read the same weights in
// the same way, as long as one of them lives.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "kernels.hpp"
#include "memory.hpp"

namespace relprop {

// What tells weights from others: 128 bits that depend on every float.
using Fingerprint = std::array<uint64_t, 2>;
Fingerprint fingerprint(std::span<const float> weights);

class PackedWeights {
  public:
    PackedWeights() = default; // none
    // By winograd_pack where `winograd` is not 0, by pack otherwise; `of` is the fingerprint of
    // all the weights of the layer. Several threads may call this at once.
    PackedWeights(const Kernels &kernels, const Packing &packing, int winograd,
                  const float *weights, const Fingerprint &of);
    const float *data() const { return held_ ? held_->data() : nullptr; }
    int64_t floats() const { return held_ ? held_->floats() : 0; }

  private:
    std::shared_ptr<const Memory> held_;
};

int64_t packed_bytes(); // that the Plans of this process hold

} // namespace relprop
