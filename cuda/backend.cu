// CUDA's values of Kernels: one for each GPU and precision that was asked for.
#include <map>
#include <mutex>
#include <stdexcept>

#include "backend.cuh"

namespace relprop {
namespace {

struct Products {
    const char *name;
    int64_t (*pack)(const Packing &, const float *weights, float *packed);
    void (*product)(const Product &, Stream);
};

Products products_of(Precision precision) {
    switch (precision) {
    case Precision::tf32:
        return {"cuda-tf32", cuda::pack, cuda::product_tf32};
    case Precision::bf16:
        return {"cuda-bf16", cuda::pack_bf16, cuda::product_bf16};
    default:
        return {"cuda", cuda::pack, cuda::product_float32};
    }
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

Kernels kernels_of(int device, const Products &products) {
    return {
        .name = products.name,
        .device = &cuda::device,
        .device_index = device,
        .pack = products.pack,
        .product = products.product,
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
        .sum_absorbed = cuda::sum_absorbed,
        .book = cuda::book,
        .regions = cuda::regions,
        .begin = cuda::begin,
        .check_finite = cuda::check_finite,
        .multiply_adds = cuda::multiply_adds,
    };
}

} // namespace

// They outlive every plan, whenever the process destroys those.
const Kernels &cuda_kernels(int device, Precision precision) {
    static std::mutex &mutex = *new std::mutex;
    static auto &made = *new std::map<std::pair<int, Precision>, Kernels>;
    cuda::device.use(device);
    const std::lock_guard lock(mutex);
    const auto found = made.find({device, precision});
    if (found != made.end())
        return found->second;
    return made.emplace(std::pair{device, precision}, kernels_of(device, products_of(precision)))
        .first->second;
}

} // namespace relprop
