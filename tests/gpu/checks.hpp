// A program of checks, each with the words for what holds.
#pragma once

#include <cstddef>
#include <cstdio>
#include <exception>

namespace relprop {

struct Check {
    const char *name;
    bool (*holds)();
};

// What the program ends with; what the work throws is told.
template <class Work> int exit_code(const Work &work) {
    try {
        return work();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}

template <size_t count> int run(const Check (&checks)[count]) {
    return exit_code([&] {
        bool all = true;
        for (const Check &check : checks) {
            const bool holds = check.holds();
            std::printf("%-4s %s\n", holds ? "ok" : "FAIL", check.name);
            all = holds && all;
        }
        return all ? 0 : 1;
    });
}

} // namespace relprop
