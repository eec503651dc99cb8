// A stack with a computation that stops and goes on: a few instructions a switch on x86-64, ucontext elsewhere.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(MMIF_EMULATE_UCONTEXT)
#define MMIF_EMULATE_UCONTEXT
#endif
#if defined(MMIF_EMULATE_UCONTEXT)
#include <ucontext.h>
#endif

namespace mmif::emulation {

// Lives as long as the process: fibers are used again, never destroyed.
class Fiber {
 public:
  // What runs already, on a stack of its own.
  Fiber() = default;

  // `entry` runs when someone first switches here; it calls arrive() before all else and never returns.
  explicit Fiber(void (*entry)()) : bottom_(map_stack()), size_(kStack) {
#if defined(MMIF_EMULATE_UCONTEXT)
    getcontext(&context_);
    context_.uc_stack.ss_sp = const_cast<void*>(bottom_);
    context_.uc_stack.ss_size = size_;
    makecontext(&context_, entry, 0);
#else
    // What switch_stacks pops, six registers and where to go, below a return address for whoever walks the stack.
    void** top = static_cast<void**>(const_cast<void*>(bottom_)) + kStack / sizeof(void*);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_pointer_ = top;
#endif
  }

  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Stops this fiber, the running one, and goes on with `next`; returns when `next` switches back.
  void switch_to(Fiber& next) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&asan_frames_, next.bottom_, next.size_);
#endif
#if defined(MMIF_EMULATE_UCONTEXT)
    swapcontext(&context_, &next.context_);
#else
    switch_stacks(&stack_pointer_, next.stack_pointer_);
#endif
    arrive(next);
  }

  // Tells AddressSanitizer, if it watches, that this fiber now runs and `previous` stopped.
  void arrive([[maybe_unused]] Fiber& previous) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(asan_frames_, &previous.bottom_, &previous.size_);
#endif
  }

 private:
  static constexpr size_t kStack = 256 << 10, kGuard = 64 << 10;

  // Nothing may touch the pages below a stack: an overflow is a crash.
  static const void* map_stack() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
      std::perror("emulation: no memory for the stack of a thread");
      std::abort();
    }
    return static_cast<char*>(memory) + kGuard;
  }

  const void* bottom_ = nullptr;
  size_t size_ = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* asan_frames_ = nullptr;
#endif
#if defined(MMIF_EMULATE_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;

  [[gnu::naked, gnu::noinline]] static void switch_stacks(void** /*save*/, void* /*load*/) {
    asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, (%rdi)\n"
        "mov %rsi, %rsp\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
        "ret");
  }
#endif
};

}  // namespace mmif::emulation
