// See embedding.hpp.
#include "steps/embedding.hpp"

namespace relprop {

Lookup Embedding::arguments(const Run &run) const {
    return {run.n * ids_,
            static_cast<int64_t>(weight_.size()) / features_,
            static_cast<int>(features_),
            weight_.data(),
            run.value(inputs[0]),
            nullptr,
            run.value(output),
            false};
}

void Embedding::forward(const Run &run) const { run.kernels.lookup(arguments(run), run.stream); }

void Embedding::relevance(const Run &run) const {
    Lookup p = arguments(run);
    p.r = run.relevance(output);
    p.result = run.relevance(inputs[0]);
    p.add = run.adds(0);
    run.kernels.lookup_relevance(p, run.stream);
}

} // namespace relprop
