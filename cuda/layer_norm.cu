// Layer norm, RMS norm, and with a group of channels as a row group norm.
#include "backend.cuh"
#include "rows.cuh"

namespace relprop::cuda {

// ---- kernels

namespace {

struct Statistics {
    float mean, scale; // 1 / deviation
    __device__ float normal(float x) const { return (x - mean) * scale; }
};

template <class Of, class Values>
__device__ __forceinline__ Statistics statistics_of(const Row<Of> &row, const RowNorm &p,
                                                    const Values &x) {
    const double mean =
        p.centred ? row.sum([](float v) { return static_cast<double>(v); }, x) / p.width : 0.0;
    const double square = row.sum(
        [=](float v) {
            const double from_mean = static_cast<double>(v) - mean;
            return from_mean * from_mean;
        },
        x);
    return {static_cast<float>(mean),
            static_cast<float>(1.0 / sqrt(square / p.width + static_cast<double>(p.epsilon)))};
}

// s times the weights.
template <class Of> __device__ __forceinline__ auto weighed(const Row<Of> &row, const RowNorm &p) {
    return row.keep([](float s, float weight) { return weight * s; }, row.array(p.s),
                    row.weights(p.weight, 1.0f));
}

// What the mean takes back of each.
template <class Of, class Values>
__device__ __forceinline__ float mean_of(const Row<Of> &row, const RowNorm &p, const Values &s) {
    if (!p.centred)
        return 0.0f;
    return static_cast<float>(row.sum([](float v) { return static_cast<double>(v); }, s) / p.width);
}

template <class Of>
__global__ void __launch_bounds__(Of::block) layer_norm_kernel(const __grid_constant__ RowNorm p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto x = row.read(p.x);
    const Statistics of = statistics_of(row, p, x);
    row.put(
        p.result, false,
        [=](float v, float weight, float bias) { return of.normal(v) * weight + bias; }, x,
        row.weights(p.weight, 1.0f), row.weights(p.bias, 0.0f));
}

// y_j = w_j (x_j - mean) / deviation: input i brings x_i (w_j [i = j] - w_j / width) / deviation.
template <class Of>
__global__ void __launch_bounds__(Of::block)
    layer_norm_relevance_kernel(const __grid_constant__ RowNorm p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto x = row.read(p.x);
    const auto s = weighed(row, p);
    const Statistics of = statistics_of(row, p, x);
    const float mean = mean_of(row, p, s);
    row.put(p.result, p.add, [=](float v, float own) { return v * of.scale * (own - mean); }, x, s);
}

// The same without x, and less what goes by way of the deviation.
template <class Of>
__global__ void __launch_bounds__(Of::block)
    layer_norm_gradient_kernel(const __grid_constant__ RowNorm p) {
    if (Row<Of>::index() >= p.rows)
        return;
    const Row<Of> row(p.width);
    const auto x = row.read(p.x);
    const auto s = weighed(row, p);
    const Statistics of = statistics_of(row, p, x);
    const float mean = mean_of(row, p, s);
    const double sum =
        row.sum([=](float v, float own) { return static_cast<double>(own) * of.normal(v); }, x, s);
    const auto through = static_cast<float>(sum / p.width);
    row.put(
        p.result, p.add,
        [=](float v, float own) { return of.scale * (own - mean - of.normal(v) * through); }, x, s);
}

} // namespace

// ---- launchers

void layer_norm(const RowNorm &p, Stream stream) {
    with_team({p.x, p.weight, p.bias, p.result}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(layer_norm_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0, stream);
    });
}

void layer_norm_relevance(const RowNorm &p, Stream stream) {
    with_team({p.x, p.weight, p.s, p.result}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(layer_norm_relevance_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0,
                              stream);
    });
}

void layer_norm_gradient(const RowNorm &p, Stream stream) {
    with_team({p.x, p.weight, p.s, p.result}, p.width, [&](auto team) {
        using Of = decltype(team);
        RELPROP_LAUNCH_BLOCKS(layer_norm_gradient_kernel<Of>, p, Of::blocks(p.rows), Of::block, 0,
                              stream);
    });
}

} // namespace relprop::cuda
