// What a CUDA call that failed is thrown as. Free of CUDA headers: the bindings include it.
#pragma once

#include <stdexcept>

namespace relprop {

struct CudaError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

} // namespace relprop
