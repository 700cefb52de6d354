// A fiber: a stack of its own on which the calling thread goes on elsewhere and comes back.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace relprop::emulator {

// Runs body() again and again; each time body ends or calls pause(), resume() returns.
class Fiber {
  public:
    explicit Fiber(void (*body)());
    ~Fiber();
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;

    void resume(); // from outside
    void pause();  // from inside

  private:
    static void enter();

    void (*body_)();
    bool entered_ = false;
    void *stack_;
    ucontext_t start_; // for the first time only: it asks the kernel for the signal mask
    jmp_buf inside_, outside_;
    const void *outer_stack_ = nullptr; // what the address sanitizer wants to be told
    size_t outer_size_ = 0;
    void *inside_frames_ = nullptr;
};

} // namespace relprop::emulator
