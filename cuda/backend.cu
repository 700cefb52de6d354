// CUDA's value of Kernels. A slot without a kernel says so when it is called; one that is left
// out altogether does not compile.
#include "backend.cuh"
#include "launch.cuh"

namespace relprop {
namespace {

template <class Result, class... Arguments> using Slot = Result (*)(Arguments...);

// Fills a slot of any type.
struct NotYet {
    template <class Result, class... Arguments> operator Slot<Result, Arguments...>() const {
        return [](Arguments...) -> Result {
            throw CudaError("this model needs a kernel that relprop does not have for CUDA yet; "
                            "use device=\"cpu\".");
        };
    }
};
constexpr NotYet not_yet;

const Kernels backend = {
    .name = "cuda",
    .pack = not_yet,
    .product = not_yet,
    .depthwise = not_yet,
    .dense = not_yet,
    .dense_adjoint = not_yet,
    .selects = not_yet,
    .winograd_outputs = not_yet,
    .winograd_pack = not_yet,
    .winograd = not_yet,
    .prepare = not_yet,
    .group_sums = not_yet,
    .spread = not_yet,
    .chunks = not_yet,
    .message = not_yet,
    .scarce = not_yet,
    .max_pool = cuda::max_pool,
    .max_pool_relevance = cuda::max_pool_relevance,
    .average_pool = cuda::average_pool,
    .average_pool_relevance = cuda::average_pool_relevance,
    .resample = not_yet,
    .resample_relevance = not_yet,
    .add = not_yet,
    .multiply = not_yet,
    .maximum = not_yet,
    .maximum_relevance = not_yet,
    .blocks = not_yet,
    .affine = not_yet,
    .affine_relevance = not_yet,
    .local_response_norm = not_yet,
    .local_response_norm_sums = not_yet,
    .local_response_norm_relevance = not_yet,
    .local_response_norm_gradient = not_yet,
    .activation = not_yet,
    .activation_gradient = not_yet,
    .clip = not_yet,
    .clip_gradient = not_yet,
    .prelu = not_yet,
    .prelu_gradient = not_yet,
    .lookup = not_yet,
    .lookup_relevance = not_yet,
    .carry = not_yet,
    .fill = not_yet,
    .gather = not_yet,
    .gather_relevance = not_yet,
    .to_channels_last = not_yet,
    .to_channels_first = not_yet,
    .sum_absorbed = not_yet,
    .totals = not_yet,
    .multiply_adds = not_yet,
};

} // namespace

const Kernels &cuda_kernels() {
    int devices = 0;
    RELPROP_CHECK(cudaGetDeviceCount(&devices));
    return backend;
}

} // namespace relprop
