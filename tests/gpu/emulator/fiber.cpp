// See fiber.hpp.
#include "fiber.hpp"

#include <sys/mman.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace relprop::emulator {
namespace {

constexpr size_t stack_bytes = 128 * 1024, guard_bytes = 64 * 1024; // a multiple of every page size

thread_local Fiber *entering = nullptr;

// The address sanitizer follows a thread's stack: it is told before a switch and after it.
void leave([[maybe_unused]] void **frames, [[maybe_unused]] const void *stack,
           [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(frames, stack, size);
#endif
}

void arrive([[maybe_unused]] void *frames, [[maybe_unused]] const void **stack,
            [[maybe_unused]] size_t *size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(frames, stack, size);
#endif
}

} // namespace

Fiber::Fiber(void (*body)()) : body_(body) {
    // Under the stack lies a guard, so that a kernel that overflows it crashes at once.
    stack_ = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack_ == MAP_FAILED)
        throw std::bad_alloc();
    mprotect(stack_, guard_bytes, PROT_NONE);
}

Fiber::~Fiber() { munmap(stack_, guard_bytes + stack_bytes); }

void Fiber::enter() {
    Fiber &self = *entering;
    arrive(nullptr, &self.outer_stack_, &self.outer_size_);
    for (;;) {
        self.body_();
        self.pause();
    }
}

void Fiber::resume() {
    char *stack = static_cast<char *>(stack_) + guard_bytes;
    void *frames = nullptr;
    if (_setjmp(outside_) == 0) {
        leave(&frames, stack, stack_bytes);
        if (entered_)
            _longjmp(inside_, 1);
        entered_ = true;
        entering = this;
        getcontext(&start_);
        start_.uc_stack.ss_sp = stack;
        start_.uc_stack.ss_size = stack_bytes;
        start_.uc_link = nullptr;
        makecontext(&start_, enter, 0);
        setcontext(&start_);
    }
    arrive(frames, nullptr, nullptr);
}

void Fiber::pause() {
    if (_setjmp(inside_) == 0) {
        leave(&inside_frames_, outer_stack_, outer_size_);
        _longjmp(outside_, 1);
    }
    arrive(inside_frames_, &outer_stack_, &outer_size_);
}

} // namespace relprop::emulator
