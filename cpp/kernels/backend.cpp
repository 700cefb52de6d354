// The value of Kernels for one instruction set.
#include "backend.hpp"

#define RELPROP_NAME_(isa) #isa
#define RELPROP_NAME(isa) RELPROP_NAME_(isa)

namespace relprop::RELPROP_ISA {

extern const Kernels backend;
const Kernels backend = {
    .name = RELPROP_NAME(RELPROP_ISA),
    .device = nullptr,
    .device_index = 0,
    .pack = pack,
    .product = product,
    .depthwise = depthwise,
    .dense = dense,
    .dense_adjoint = dense_adjoint,
    .selects = selects,
    .winograd_outputs = winograd_outputs,
    .winograd_pack = winograd_pack,
    .winograd = winograd,
    .prepare = prepare,
    .group_sums = group_sums,
    .spread = spread,
    .chunks = chunks,
    .message = message,
    .scarce = scarce,
    .max_pool = max_pool,
    .max_pool_relevance = max_pool_relevance,
    .average_pool = average_pool,
    .average_pool_relevance = average_pool_relevance,
    .resample = resample,
    .resample_relevance = resample_relevance,
    .add = add,
    .multiply = multiply,
    .maximum = maximum,
    .maximum_relevance = maximum_relevance,
    .blocks = blocks,
    .affine = affine,
    .affine_relevance = affine_relevance,
    .local_response_norm = local_response_norm,
    .local_response_norm_sums = local_response_norm_sums,
    .local_response_norm_relevance = local_response_norm_relevance,
    .local_response_norm_gradient = local_response_norm_gradient,
    .activation = activation,
    .activation_gradient = activation_gradient,
    .clip = clip,
    .clip_gradient = clip_gradient,
    .prelu = prelu,
    .prelu_gradient = prelu_gradient,
    .lookup = lookup,
    .lookup_relevance = lookup_relevance,
    .carry = carry,
    .fill = fill,
    .gather = gather,
    .gather_relevance = gather_relevance,
    .to_channels_last = to_channels_last,
    .to_channels_first = to_channels_first,
    .totals = totals,
    .sum_absorbed = sum_absorbed,
    .book = book,
    .regions = regions,
    .begin = begin,
    .check_finite = check_finite,
    .multiply_adds = multiply_adds,
};

} // namespace relprop::RELPROP_ISA
