// The thread pool behind parallel.hpp: sleeping workers, one parallel region at a time. A region
// that finds the pool busy (another Python thread is in it) runs on its own thread alone.
#include "parallel.hpp"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace relprop {
namespace {

struct Region {
    int64_t tasks;
    Task run;
    const void *body;
    std::atomic<int64_t> next{0};

    void work() {
        const bool outer = std::exchange(inside, true);
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
            run(body, task);
        inside = outer;
    }

    static thread_local bool inside; // a task that starts a region works on it alone
};
thread_local bool Region::inside = false;

class Pool {
    static constexpr int looks = 4000;

  public:
    // Runs the region with up to `helpers` workers beside the caller.
    void run(Region &region, int helpers) {
        {
            std::lock_guard lock(mutex_);
            while (static_cast<int>(workers_.size()) < helpers)
                workers_.emplace_back([this] { loop(); });
            region_ = &region;
            places_ = helpers;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        region.work();
        {
            std::lock_guard lock(mutex_);
            region_ = nullptr; // a worker that wakes only now has nothing left to join
        }
        // Workers end their last tasks soon: looking for a moment is cheaper than sleeping.
        for (int i = 0; i < looks && active_.load(std::memory_order_acquire) > 0; ++i)
            pause();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return active_ == 0; });
    }

    std::mutex busy; // held by the thread whose region the pool is working on

  private:
    void loop() {
        uint64_t seen = 0;
        for (;;) {
            // Regions follow each other closely.
            for (int i = 0; i < looks && generation_.load(std::memory_order_acquire) == seen; ++i)
                pause();
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return generation_.load() != seen; });
            seen = generation_.load();
            if (region_ == nullptr || places_ == 0)
                continue;
            Region *region = region_;
            --places_;
            ++active_;
            lock.unlock();
            region->work();
            lock.lock();
            if (--active_ == 0)
                done_.notify_one();
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    Region *region_ = nullptr;
    int places_ = 0;             // workers that may still join the region
    std::atomic<int> active_{0}; // workers inside the region; changed under the mutex
    std::atomic<uint64_t> generation_{0};
};

// Never destroyed: workers may still sleep in it when the process ends. After a fork the child
// has no workers, so it starts with a pool of its own.
std::atomic<Pool *> pool{nullptr};

void renew_pool() { pool.store(new Pool, std::memory_order_release); }

Pool &the_pool() {
    static const bool once = [] {
        renew_pool();
        pthread_atfork(nullptr, nullptr, renew_pool);
        return true;
    }();
    (void)once;
    return *pool.load(std::memory_order_acquire);
}

int initial_threads() {
    for (const char *name : {"RELPROP_NUM_THREADS", "OMP_NUM_THREADS"}) {
        if (const char *text = std::getenv(name)) {
            char *end = nullptr;
            const long count = std::strtol(text, &end, 10);
            if (end != text && *end == '\0' && count >= 1 && count <= 4096)
                return static_cast<int>(count);
        }
    }
    cpu_set_t set;
    if (pthread_getaffinity_np(pthread_self(), sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    const unsigned count = std::thread::hardware_concurrency();
    return count > 0 ? static_cast<int>(count) : 1;
}

std::atomic<int> &thread_count() {
    static std::atomic<int> count{initial_threads()};
    return count;
}

} // namespace

int threads() { return thread_count().load(std::memory_order_relaxed); }

void set_threads(int count) {
    if (count < 1 || count > 4096)
        throw std::invalid_argument("threads must be between 1 and 4096, not " +
                                    std::to_string(count) + ".");
    thread_count().store(count, std::memory_order_relaxed);
}

void parallel_run(int64_t tasks, Task run, const void *body) {
    Region region{tasks, run, body};
    const int64_t helpers = std::min<int64_t>(threads(), tasks) - 1;
    Pool &workers = the_pool();
    if (helpers <= 0 || Region::inside || !workers.busy.try_lock()) {
        region.work();
        return;
    }
    std::lock_guard busy(workers.busy, std::adopt_lock);
    workers.run(region, static_cast<int>(helpers));
}

} // namespace relprop
