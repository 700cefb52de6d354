// CUDA's values of Kernels: one for each GPU and precision that was asked for.
#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "backend.cuh"
#include "launch.cuh"
#include "product_parts.hpp"

namespace relprop {
namespace {

struct Products {
    const char *name;
    int64_t (*pack)(const Packing &, const float *weights, float *packed);
    void (*product)(const Product &, Stream);
    int64_t (*scratch)(const Product &);
};

int64_t no_scratch(const Product &) { return 0; }

Products products_of(Precision precision) {
    switch (precision) {
    case Precision::tf32:
        return {"cuda-tf32", cuda::pack, cuda::product_tf32, no_scratch};
    case Precision::bf16:
        return {"cuda-bf16", cuda::pack_bf16, cuda::product_bf16, no_scratch};
    default:
        return {"cuda", cuda::pack, cuda::product_float32, no_scratch};
    }
}

Products warpgroup_products_of(Precision precision) {
    constexpr auto scratch = cuda::scratch_of_product;
    switch (precision) {
    case Precision::tf32:
        return {"cuda-tf32", cuda::pack_warpgroup_tf32, cuda::product_warpgroup_tf32, scratch};
    case Precision::bf16:
        return {"cuda-bf16", cuda::pack_warpgroup_bf16, cuda::product_warpgroup_bf16, scratch};
    default:
        return {"cuda", cuda::pack_warpgroup_float32, cuda::product_warpgroup_float32, scratch};
    }
}

// Whether this GPU has warpgroups' instructions (later ones have lost them) and they were compiled,
// and nothing in the environment says to go without, so that the two can be compared.
bool has_warpgroups(int device) {
    int major = 0, minor = 0;
    RELPROP_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    RELPROP_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    const char *asked = std::getenv("RELPROP_TENSOR_CORES");
    const std::string by = asked ? asked : "";
    if (by != "" && by != "warp" && by != "warpgroup")
        throw std::runtime_error("RELPROP_TENSOR_CORES must be warp or warpgroup, not " + by + ".");
#ifdef RELPROP_COMPILED_FOR_HOPPER
    const bool here = major == 9 && minor == 0;
#else
    const bool here = false;
    if (by == "warpgroup")
        throw std::runtime_error("RELPROP_TENSOR_CORES=warpgroup needs relprop compiled for 90a.");
#endif
    if (by == "warpgroup" && !here)
        throw std::runtime_error("RELPROP_TENSOR_CORES=warpgroup needs a GPU of compute capability "
                                 "9.0 (Hopper), not " +
                                 std::to_string(major) + "." + std::to_string(minor) + ".");
    return here && by != "warp";
}

// One product serves all layers: tensor cores leave nothing to win for the CPU's other two ways.
bool selects(const TapGrid &, int) { return false; }

int winograd_outputs(const TapGrid &, int) { return 0; }

int64_t winograd_pack(const Packing &, int, const float *, float *) {
    throw std::logic_error("winograd_pack: CUDA has no Winograd filtering.");
}

void winograd(const Product &, int, Stream) {
    throw std::logic_error("winograd: CUDA has no Winograd filtering.");
}

int64_t multiply_adds(int64_t, Stream) {
    throw std::logic_error("multiply_adds: the ceiling of CUDA's products is the tensor cores'.");
}

Kernels kernels_of(int device, const Products &products) {
    return {
        .name = products.name,
        .device = &cuda::device,
        .device_index = device,
        .pack = products.pack,
        .product = products.product,
        .product_scratch = products.scratch,
        .depthwise = cuda::depthwise,
        .dense = products.product,
        .dense_adjoint = products.product,
        .selects = selects,
        .winograd_outputs = winograd_outputs,
        .winograd_pack = winograd_pack,
        .winograd = winograd,
        .prepare = cuda::prepare,
        .group_sums = cuda::group_sums,
        .spread = cuda::spread,
        .folds = cuda::folds,
        .fold = cuda::fold,
        .chunks = cuda::chunks,
        .message = cuda::message,
        .scarce = cuda::scarce,
        .max_pool = cuda::max_pool,
        .max_pool_relevance = cuda::max_pool_relevance,
        .average_pool = cuda::average_pool,
        .average_pool_relevance = cuda::average_pool_relevance,
        .resample = cuda::resample,
        .resample_relevance = cuda::resample_relevance,
        .add = cuda::add,
        .multiply = cuda::multiply,
        .maximum = cuda::maximum,
        .maximum_relevance = cuda::maximum_relevance,
        .blocks = cuda::blocks,
        .affine = cuda::affine,
        .affine_relevance = cuda::affine_relevance,
        .local_response_norm = cuda::local_response_norm,
        .local_response_norm_sums = cuda::local_response_norm_sums,
        .local_response_norm_relevance = cuda::local_response_norm_relevance,
        .local_response_norm_gradient = cuda::local_response_norm_gradient,
        .layer_norm = cuda::layer_norm,
        .layer_norm_relevance = cuda::layer_norm_relevance,
        .layer_norm_gradient = cuda::layer_norm_gradient,
        .softmax = cuda::softmax,
        .softmax_relevance = cuda::softmax_relevance,
        .softmax_gradient = cuda::softmax_gradient,
        .matrix_product = cuda::matrix_product,
        .activation = cuda::activation,
        .activation_gradient = cuda::activation_gradient,
        .clip = cuda::clip,
        .clip_gradient = cuda::clip_gradient,
        .prelu = cuda::prelu,
        .prelu_gradient = cuda::prelu_gradient,
        .lookup = cuda::lookup,
        .lookup_relevance = cuda::lookup_relevance,
        .carry = cuda::carry,
        .fill = cuda::fill,
        .gather = cuda::gather,
        .gather_relevance = cuda::gather_relevance,
        .to_channels_last = cuda::to_channels_last,
        .to_channels_first = cuda::to_channels_first,
        .totals = cuda::totals,
        .sum_tallies = cuda::sum_tallies,
        .book = cuda::book,
        .regions = cuda::regions,
        .begin = cuda::begin,
        .check_finite = cuda::check_finite,
        .multiply_adds = multiply_adds,
    };
}

} // namespace

// They outlive every plan, whenever the process destroys those.
const Kernels &cuda_kernels(int device, Precision precision) {
    static std::mutex &mutex = *new std::mutex;
    static auto &made = *new std::map<std::pair<int, Precision>, Kernels>;
    cuda::device.require(device);
    const std::lock_guard lock(mutex);
    const auto found = made.find({device, precision});
    if (found != made.end())
        return found->second;
    const Products products =
        has_warpgroups(device) ? warpgroup_products_of(precision) : products_of(precision);
    return made.emplace(std::pair{device, precision}, kernels_of(device, products)).first->second;
}

} // namespace relprop
