// Runs the threads of a grid in turn: block after block, in a block warp after warp, each as far as it gets.
//
// A warp runs until its lanes wait at __syncthreads or have returned; only then the next one starts. That is the
// largest lead that one warp can have over another: where a barrier is missing, something is read too early or too
// late.
#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <mutex>
#include <vector>

#include "fiber.h"
#include "order.h"
#include "shared_memory.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace mmif::emulation {
namespace {

constexpr int kWarp = 32;

enum class State { kReady, kAtBarrier, kAtWarpOperation, kReturned };

struct Thread {
  dim3 index;
  Fiber* fiber = nullptr;  // from its first turn on
  State state = State::kReady;
  // What it waits with at a warp operation; see exchange().
  const char* operation = nullptr;
  uint32_t mask = 0;
  uint64_t value = 0;
  int source = 0;
};

// The one grid that runs at a time, and what the next one uses again.
struct {
  std::mutex mutex;
  Kernel* kernel;
  void (*thread)(void*);
  void* arguments;
  std::vector<Thread> block;  // the threads of the block that runs
  int current;                // the one of them that runs
  Order blocks, warps, lanes;
  Fiber scheduler;
  std::deque<Fiber> fibers;
  std::vector<Fiber*> idle;
} run;

template <typename... Values>
[[noreturn]] void fail(const char* format, Values... values) {
  const auto name = run.kernel->name;
  std::fprintf(stderr, "emulation: %.*s, block (%u, %u, %u): ", static_cast<int>(name.size()), name.data(), blockIdx.x,
               blockIdx.y, blockIdx.z);
  std::fprintf(stderr, format, values...);
  std::fputc('\n', stderr);
  std::abort();
}

// What a fiber does: one thread after another.
void serve_threads() {
  run.block[run.current].fiber->arrive(run.scheduler);
  for (;;) {
    run.thread(run.arguments);
    Thread& thread = run.block[run.current];
    thread.state = State::kReturned;
    thread.fiber->switch_to(run.scheduler);
  }
}

Fiber* idle_fiber() {
  if (run.idle.empty()) return &run.fibers.emplace_back(serve_threads);
  Fiber* fiber = run.idle.back();
  run.idle.pop_back();
  return fiber;
}

// Lets a thread run until it waits or returns.
void take_turn(int i) {
  Thread& thread = run.block[i];
  if (!thread.fiber) thread.fiber = idle_fiber();
  run.current = i;
  threadIdx = thread.index;
  run.scheduler.switch_to(*thread.fiber);
  if (thread.state == State::kReturned) run.idle.push_back(thread.fiber);
}

// What lane `lane` of a warp does instead of waiting with `thread`, or nullptr if it waits with it.
const char* why_absent(const Thread& thread, int warp, int lane) {
  const size_t i = warp * kWarp + lane;
  if (i >= run.block.size()) return "is not in the block";
  const Thread& other = run.block[i];
  if (other.state == State::kReturned) return "has returned";
  if (other.state == State::kAtBarrier) return "waits at __syncthreads";
  if (other.state == State::kReady) return "is on its way";
  const bool same = std::strcmp(other.operation, thread.operation) == 0 && other.mask == thread.mask;
  return same ? nullptr : "waits at another operation or with another mask";
}

// The first lane of its mask that does not wait with `thread`; kWarp if all do.
int first_absent(const Thread& thread, int warp) {
  int lane = 0;
  while (lane < kWarp && !((thread.mask >> lane & 1) && why_absent(thread, warp, lane))) ++lane;
  return lane;
}

// Moves the values between the lanes of `mask`, which all wait, and makes them ready.
void complete(uint32_t mask, Thread* lanes) {
  uint64_t given[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) given[lane] = mask >> lane & 1 ? lanes[lane].value : ~uint64_t{0};
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    lanes[lane].value = given[lanes[lane].source];
    lanes[lane].state = State::kReady;
  }
}

// Lets each lane run until it waits at __syncthreads or has returned.
void run_warp(int warp) {
  const int first = warp * kWarp, lanes = std::min(kWarp, static_cast<int>(run.block.size()) - first);
  for (bool any = true; any;) {
    any = false;
    for (const int lane : run.lanes.next(lanes)) {
      if (run.block[first + lane].state != State::kReady) continue;
      take_turn(first + lane);
      any = true;
    }
  }
  for (int i = first; i < first + lanes; ++i) {
    const Thread& thread = run.block[i];
    if (thread.state != State::kAtWarpOperation) continue;
    const int lane = first_absent(thread, warp);
    fail("lane %d of warp %d waits at %s with mask %08x for lane %d, which %s", i - first, warp, thread.operation,
         thread.mask, lane, why_absent(thread, warp, lane));
  }
}

void run_block() {
  auto thread = run.block.begin();
  for (uint32_t z = 0; z < blockDim.z; ++z)
    for (uint32_t y = 0; y < blockDim.y; ++y)
      for (uint32_t x = 0; x < blockDim.x; ++x) *thread++ = {dim3(x, y, z)};
  const int size = static_cast<int>(run.block.size());
  for (;;) {
    for (const int warp : run.warps.next((size + kWarp - 1) / kWarp)) run_warp(warp);
    int waiting = 0;
    for (const Thread& t : run.block) waiting += t.state == State::kAtBarrier;
    if (waiting == 0) return;
    if (waiting < size) fail("%d threads wait at __syncthreads, but %d have returned", waiting, size - waiting);
    for (Thread& t : run.block) t.state = State::kReady;
  }
}

bool within_limits(dim3 grid, dim3 block) {
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z, threads = uint64_t{block.x} * block.y * block.z;
  return blocks > 0 && grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535 && threads > 0 && threads <= 1024 &&
         block.z <= 64;
}

// All kernels of this library. When it is unloaded, writes those that ran and those that did not to the file that
// EMU_KERNELS names.
struct Kernels : std::vector<Kernel*> {
  ~Kernels() {
    const char* path = std::getenv("EMU_KERNELS");
    if (!path) return;
    std::ofstream file(path);
    for (const Kernel* kernel : *this) file << (kernel->ran ? "ran " : "not ") << kernel->name << '\n';
  }
};

Kernels& kernels() {
  static Kernels all;
  return all;
}

}  // namespace

Kernel::Kernel(const char* signature) : name(signature) {
  const size_t begin = name.find("kernel = ");
  name = name.substr(begin + 9, name.rfind(']') - begin - 9);
  kernels().push_back(this);
}

int run_grid(Kernel& kernel, dim3 grid, dim3 block, void (*thread)(void*), void* arguments) {
  constexpr int kInvalidConfiguration = 9;
  if (!within_limits(grid, block)) return kInvalidConfiguration;
  const std::lock_guard lock(run.mutex);
  kernel.ran = true;
  run.kernel = &kernel;
  run.thread = thread;
  run.arguments = arguments;
  run.block.resize(block.x * block.y * block.z);
  gridDim = grid;
  blockDim = block;
  const Span shared = shared_memory();
  for (const int i : run.blocks.next(size_t{grid.x} * grid.y * grid.z)) {
    blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
    poison(shared);
    run_block();
  }
  return 0;
}

int lane() { return run.current % kWarp; }

void sync_block() {
  Thread& thread = run.block[run.current];
  thread.state = State::kAtBarrier;
  thread.fiber->switch_to(run.scheduler);
}

void sync_warp(const char* operation, uint32_t mask) { exchange(operation, mask, 0, lane()); }

uint64_t exchange(const char* operation, uint32_t mask, uint64_t value, int source) {
  if (!(mask >> lane() & 1)) fail("lane %d calls %s with mask %08x, which lacks it", lane(), operation, mask);
  const int warp = run.current / kWarp;
  Thread& thread = run.block[run.current];
  thread.state = State::kAtWarpOperation;
  thread.operation = operation;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  if (first_absent(thread, warp) == kWarp) complete(mask, &run.block[warp * kWarp]);
  thread.fiber->switch_to(run.scheduler);  // also if ready: the turns keep their order
  return thread.value;
}

}  // namespace mmif::emulation
