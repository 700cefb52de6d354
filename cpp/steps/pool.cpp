// See pool.hpp.
#include "steps/pool.hpp"

namespace relprop {
namespace {

Pool arguments(const Run &run, const Step &step, const PoolGeometry &of) {
    Pool p{};
    p.n = run.n;
    p.channels = of.channels;
    p.z = of.z;
    p.y = of.y;
    p.x = of.x;
    p.count_include_pad = of.count_include_pad;
    p.divisor = of.divisor;
    p.in = run.value(step.inputs[0]);
    p.result = run.value(step.output);
    return p;
}

Pool relevance_arguments(const Run &run, const Step &step, const PoolGeometry &of) {
    Pool p = arguments(run, step, of);
    p.r = run.relevance(step.output);
    p.result = run.relevance(step.inputs[0]);
    p.add = run.adds(0);
    return p;
}

Image output_image(const PoolGeometry &of) {
    return {of.z.outputs, of.y.outputs, of.x.outputs, of.channels};
}

} // namespace

void MaxPool::forward(const Run &run) const {
    run.kernels.max_pool(arguments(run, *this, geometry_), run.stream);
}

void MaxPool::relevance(const Run &run) const {
    Pool p = relevance_arguments(run, *this, geometry_);
    const std::optional<Message> sent = run.sent(0);
    p.sent = sent ? &*sent : nullptr;
    run.kernels.max_pool_relevance(p, run.stream);
}

ProportionalMaxPool::ProportionalMaxPool(const Kernels &kernels, const PoolGeometry &geometry,
                                         float epsilon)
    : Proportional(kernels, output_image(geometry), epsilon), geometry_(geometry) {
    geometry_.divisor = 1; // plain sums over the window
}

void ProportionalMaxPool::forward(const Run &run) const {
    run.kernels.max_pool(arguments(run, *this, geometry_), run.stream);
}

void ProportionalMaxPool::relevance(const Run &run) const {
    Pool sums = arguments(run, *this, geometry_);
    sums.result = run.scratch();
    run.kernels.average_pool(sums, run.stream);
    divide(run, run.scratch());
    run.kernels.average_pool_relevance(relevance_arguments(run, *this, geometry_), run.stream);
}

AveragePool::AveragePool(const Kernels &kernels, const PoolGeometry &geometry,
                         std::optional<float> epsilon)
    : Proportional(kernels, output_image(geometry), epsilon), geometry_(geometry) {}

void AveragePool::forward(const Run &run) const {
    run.kernels.average_pool(arguments(run, *this, geometry_), run.stream);
}

void AveragePool::relevance(const Run &run) const {
    divide(run, run.value(output));
    Pool p = relevance_arguments(run, *this, geometry_);
    p.in = weighed(run);
    run.kernels.average_pool_relevance(p, run.stream);
}

} // namespace relprop
