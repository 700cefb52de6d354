// The runtime's calls for graphs, which hold what a stream captured; see cuda_runtime.h.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime.hpp"
#include "stream.hpp"

using namespace relprop::emulator;

namespace {

struct Graph {
    int device;
    std::vector<Work> work;
};

struct Registry {
    std::mutex mutex;
    std::map<cudaGraph_t, std::shared_ptr<const Graph>> captured;
    std::map<cudaGraphExec_t, std::shared_ptr<const Graph>> ready;
};

Registry &registry() {
    static Registry &only = *new Registry; // outlives whoever ends a graph at exit
    return only;
}

std::atomic<int> launches = 0;

} // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (!is_here(stream))
        return result(cudaErrorInvalidResourceHandle);
    if (is_default(stream) || capture_of(stream))
        return result(cudaErrorStreamCaptureUnsupported);
    capture_to(stream, std::make_shared<Capture>());
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = nullptr;
    if (!is_stream(stream))
        return result(cudaErrorInvalidResourceHandle);
    const std::shared_ptr<Capture> capture = capture_of(stream);
    if (!capture)
        return result(cudaErrorIllegalState);
    if (capture->by != std::this_thread::get_id())
        return result(cudaErrorStreamCaptureWrongThread);
    capture_to(stream, nullptr);
    if (capture->spoiled)
        return result(cudaErrorStreamCaptureInvalidated);
    const auto made =
        std::make_shared<const Graph>(Graph{current_device(), std::move(capture->work)});
    *graph = reinterpret_cast<cudaGraph_t>(const_cast<Graph *>(made.get()));
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    all.captured[*graph] = made;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long) {
    if (spoil_captures(Captures::of_this_thread))
        return result(cudaErrorStreamCaptureUnsupported);
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    const auto found = all.captured.find(graph);
    if (found == all.captured.end())
        return result(cudaErrorInvalidValue);
    const auto made = std::make_shared<const Graph>(*found->second);
    *ready = reinterpret_cast<cudaGraphExec_t>(const_cast<Graph *>(made.get()));
    all.ready[*ready] = made;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return require(all.captured.erase(graph) > 0, cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
    std::shared_ptr<const Graph> graph;
    {
        Registry &all = registry();
        const std::lock_guard lock(all.mutex);
        const auto found = all.ready.find(ready);
        if (found != all.ready.end())
            graph = found->second;
    }
    if (!graph)
        return result(cudaErrorInvalidValue);
    if (!is_here(stream) || graph->device != current_device())
        return result(cudaErrorInvalidResourceHandle);
    for (const Work &work : graph->work)
        give(stream, work);
    ++launches;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return require(all.ready.erase(ready) > 0, cudaErrorInvalidValue);
}

int relprop_graph_launches() { return launches; }

int relprop_graphs_held() {
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    return static_cast<int>(all.captured.size() + all.ready.size());
}
