// How long a check may take: RELPROP_CHECK_SECONDS, or as long as it does. A sanitizer that has to
// be stopped together with a slow check would not tell what it found.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace relprop {

// Counts the cases that there is no time for.
class TimeLimit {
  public:
    ~TimeLimit() {
        if (left_out_ > 0)
            std::printf("left out: %d cases, after %s seconds\n", left_out_, limit_);
    }
    bool reached() {
        if (!limit_ || Clock::now() - begun_ < std::chrono::duration<double>(std::atof(limit_)))
            return false;
        ++left_out_;
        return true;
    }

  private:
    using Clock = std::chrono::steady_clock;
    const char *limit_ = std::getenv("RELPROP_CHECK_SECONDS");
    Clock::time_point begun_ = Clock::now();
    int left_out_ = 0;
};

} // namespace relprop
