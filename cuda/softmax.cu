// Softmax of rows.
#include "activations.hpp"
#include "backend.cuh"
#include "rows.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

template <class Of>
__global__ void __launch_bounds__(Of::block) softmax_kernel(const __grid_constant__ RowSoftmax p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto x = row.read(p.x);
    const float most = row.most(x);
    const auto powers = row.keep([=](float v) { return RELPROP_MATH(exp)(v - most); }, x);
    const double sum = row.sum([](float power) { return static_cast<double>(power); }, powers);
    const auto scale = static_cast<float>(1.0 / sum);
    row.put(p.result, false, [=](float power) { return power * scale; }, powers);
}

// Input i brings y_j ([i = j] - y_i) x_i to output j, the expansion's constant the rest.
template <class Of>
__global__ void __launch_bounds__(Of::block)
    softmax_relevance_kernel(const __grid_constant__ RowSoftmax p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto x = row.read(p.x), y = row.read(p.y), r = row.read(p.r);
    const auto sum =
        static_cast<float>(row.sum([](float own) { return static_cast<double>(own); }, r));
    const auto mean = static_cast<float>(
        row.sum([](float share, float of) { return static_cast<double>(share) * of; }, y, x));
    row.put(
        p.constant, false, [=](float of, float own) { return own * (1.0f - (of - mean)); }, x, r);
    row.put(
        p.result, p.add, [=](float of, float share, float own) { return of * (own - share * sum); },
        x, y, r);
}

template <class Of>
__global__ void __launch_bounds__(Of::block)
    softmax_gradient_kernel(const __grid_constant__ RowSoftmax p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto y = row.read(p.y), r = row.read(p.r);
    const auto sum = static_cast<float>(
        row.sum([](float share, float own) { return static_cast<double>(share) * own; }, y, r));
    row.put(p.result, p.add, [=](float share, float own) { return share * (own - sum); }, y, r);
}

} // namespace

// ---- launchers

void softmax(const RowSoftmax &p, Stream stream) {
    with_team({p.x, p.result}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(softmax_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0, stream);
    });
}

void softmax_relevance(const RowSoftmax &p, Stream stream) {
    with_team({p.x, p.y, p.r, p.result, p.constant}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(softmax_relevance_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0,
                              stream);
    });
}

void softmax_gradient(const RowSoftmax &p, Stream stream) {
    with_team({p.y, p.r, p.result}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(softmax_gradient_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0,
                              stream);
    });
}

} // namespace relprop::cuda
