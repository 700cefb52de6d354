// The thread pool: parallel_for runs numbered tasks on the calling thread and the pool's.
// Which thread runs a task never changes a result: tasks write apart and no sum crosses them. A
// task may call parallel_for again, whose tasks then all run on its own thread.
#pragma once

#include <cstdint>
#include <utility>

namespace relprop {

// Threads used by each run, the calling one included.
int threads();
void set_threads(int count); // throws std::invalid_argument unless count >= 1

using Task = void (*)(const void *body, int64_t task);
void parallel_run(int64_t tasks, Task run, const void *body);

// Calls body(task) for task in [0, tasks). body must not throw.
template <class Body> static inline void parallel_for(int64_t tasks, const Body &body) {
    parallel_run(
        tasks, [](const void *b, int64_t task) { (*static_cast<const Body *>(b))(task); }, &body);
}

} // namespace relprop
