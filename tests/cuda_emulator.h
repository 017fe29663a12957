// SPDX-License-Identifier: Apache-2.0
// Runs the CUDA kernels' device code on the CPU, one fiber a thread, so that their index maps and
// barriers can be tested where there is no GPU. Stands in for src/cuda/kernels/ptx.cuh.
//
// Threads of a block take turns at barriers and warp-wide instructions only; asynchronous copies
// happen at once. So it finds wrong indices, fragments and missing data, not races.
#pragma once

#include <cuda_fp16.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#define MSTPP_DEVICE inline
#define MSTPP_HOST_DEVICE
#define MSTPP_UNROLL
#define MSTPP_UNROLL_2
#define MSTPP_UNROLL_4
#define MSTPP_UNROLL_8
#define MSTPP_NO_UNROLL

namespace mstpp::cuda {

using std::max;
using std::min;

struct EmulatedIndex {
  int x = 0, y = 0, z = 0;
};
inline EmulatedIndex threadIdx, blockIdx, gridDim;

class Emulator {
 public:
  static Emulator& Instance() {
    static Emulator emulator;
    return emulator;
  }

  // Runs `body` for every thread of every block of a one-dimensional grid.
  void Launch(int blocks, int threads, size_t shared_bytes, const std::function<void()>& body) {
    body_ = body;
    threads_ = threads;
    shared_.assign(128 + shared_bytes + kGuardBytes, kUnwritten);
    if (fibers_.size() < static_cast<size_t>(threads)) fibers_.resize(threads);
    gridDim.x = blocks;
    for (int block = 0; block < blocks; ++block) {
      blockIdx.x = block;
      std::fill(shared_.begin(), shared_.end(), kUnwritten);
      RunBlock();
      const unsigned char* end = shared() + shared_bytes;
      if (std::any_of(end, end + kGuardBytes, [](unsigned char b) { return b != kUnwritten; })) {
        throw std::logic_error("a kernel wrote behind its shared memory");
      }
    }
  }

  unsigned char* shared() {
    const auto address = reinterpret_cast<uintptr_t>(shared_.data());
    return reinterpret_cast<unsigned char*>((address + 127) / 128 * 128);
  }

  void BlockBarrier() { Wait(block_barrier_, threads_); }

  void Yield() { SwitchToNext(); }

  // Every lane gives `mine` and gets the words of all lanes.
  const uint32_t (*Exchange(const uint32_t* mine, int words))[8] {
    Warp& warp = warps_[current_ / 32];
    // Two buffers: a lane may be one exchange ahead of one still reading the last.
    const int side = fibers_[current_].side ^= 1;
    std::copy(mine, mine + words, warp.words[side][current_ % 32]);
    Wait(warp.barrier, 32);
    return warp.words[side];
  }

 private:
  static constexpr unsigned char kUnwritten = 0x7e;  // as FP16 and FP32 a large number
  static constexpr size_t kGuardBytes = 4096;

  struct Barrier {
    int arrived = 0, generation = 0;
  };
  struct Warp {
    Barrier barrier;
    uint32_t words[2][32][8];
  };
  struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
    int side = 0;
  };

  void Wait(Barrier& barrier, int count) {
    const int generation = barrier.generation;
    if (++barrier.arrived == count) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    while (barrier.generation == generation) SwitchToNext();
  }

  void SwitchToNext() {
    const int from = current_;
    int next = from;
    do {
      next = (next + 1) % threads_;
    } while (fibers_[next].done && next != from);
    if (next == from) throw std::logic_error("a barrier that not all threads reach");
    Enter(next);
    swapcontext(&fibers_[from].context, &fibers_[next].context);
  }

  void Enter(int thread) {
    current_ = thread;
    threadIdx.x = thread;
  }

  static void Trampoline() {
    Emulator& self = Instance();
    self.body_();
    self.fibers_[self.current_].done = true;
    for (int i = 1; i < self.threads_; ++i) {
      const int next = (self.current_ + i) % self.threads_;
      if (self.fibers_[next].done) continue;
      self.Enter(next);
      setcontext(&self.fibers_[next].context);
    }
    setcontext(&self.main_);
  }

  void RunBlock() {
    block_barrier_ = {};
    warps_.assign((threads_ + 31) / 32, Warp());
    for (int i = 0; i < threads_; ++i) {
      Fiber& fiber = fibers_[i];
      fiber.stack.resize(1 << 17);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = nullptr;
      fiber.done = false;
      fiber.side = 0;
      makecontext(&fiber.context, &Emulator::Trampoline, 0);
    }
    Enter(0);
    swapcontext(&main_, &fibers_[0].context);
  }

  std::function<void()> body_;
  int threads_ = 0, current_ = 0;
  std::vector<unsigned char> shared_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Barrier block_barrier_;
  ucontext_t main_;
};

inline unsigned char* SharedMemory() { return Emulator::Instance().shared(); }
inline void __syncthreads() { Emulator::Instance().BlockBarrier(); }
template <int kThreads>
void BlockBarrier() {
  Emulator::Instance().BlockBarrier();
}
inline void __syncwarp() {
  const uint32_t nothing = 0;
  Emulator::Instance().Exchange(&nothing, 1);
}
inline void __threadfence() {}

inline uint32_t AsUint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float AsFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float HalfLow(uint32_t a) {
  return __half2float(__half(__half_raw{static_cast<uint16_t>(a)}));
}
inline float HalfHigh(uint32_t a) { return HalfLow(a >> 16); }
inline uint32_t HalfPack(float low, float high) {
  const __half_raw l = __float2half_rn(low), h = __float2half_rn(high);
  return static_cast<uint32_t>(l.x) | static_cast<uint32_t>(h.x) << 16;
}
inline uint32_t Bf16Pack(float low, float high) {
  const auto round = [](float value) {
    const uint32_t bits = AsUint(value);
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return round(low) | round(high) << 16;
}
inline uint32_t HalfMul(uint32_t a, uint32_t b) {
  return HalfPack(HalfLow(a) * HalfLow(b), HalfHigh(a) * HalfHigh(b));
}
inline uint32_t HalfAdd(uint32_t a, uint32_t b) {
  return HalfPack(HalfLow(a) + HalfLow(b), HalfHigh(a) + HalfHigh(b));
}
inline uint32_t HalfSubtract(uint32_t a, uint32_t b) {
  return HalfPack(HalfLow(a) - HalfLow(b), HalfHigh(a) - HalfHigh(b));
}
inline uint32_t HalfFma(uint32_t a, uint32_t b, uint32_t c) {
  return HalfPack(HalfLow(a) * HalfLow(b) + HalfLow(c), HalfHigh(a) * HalfHigh(b) + HalfHigh(c));
}
inline uint32_t HalfNegatedFma(uint32_t a, uint32_t b, uint32_t c) {
  return HalfFma(a ^ 0x80008000u, b, c);
}
inline uint32_t PermuteBytes(uint32_t low, uint32_t high, uint32_t places) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) result |= (bytes >> (places >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}
inline uint32_t HalfAbs(uint32_t a) { return a & 0x7fff7fffu; }
inline uint32_t HalfFmaSaturate(uint32_t a, uint32_t b, uint32_t c) {
  const auto clamp = [](float value) { return value > 0.0f ? std::min(value, 1.0f) : 0.0f; };
  return HalfPack(clamp(HalfLow(a) * HalfLow(b) + HalfLow(c)),
                  clamp(HalfHigh(a) * HalfHigh(b) + HalfHigh(c)));
}
inline uint32_t Shuffle(uint32_t value, int lane) {
  return Emulator::Instance().Exchange(&value, 1)[lane][0];
}
inline float Shuffle(float value, int lane) { return AsFloat(Shuffle(AsUint(value), lane)); }
inline uint32_t ShuffleXor(uint32_t value, int mask) {
  return Shuffle(value, (threadIdx.x & 31) ^ mask);
}
inline float ShuffleXor(float value, int mask) { return Shuffle(value, (threadIdx.x & 31) ^ mask); }

inline int OfWarp(int value) { return value; }

// Element (row, k) of A and (k, column) of B as the hardware spreads them, for both shapes.
inline void MmaHalf(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                    uint32_t b1, float c0, float c1, float c2, float c3) {
  const float start[4] = {c0, c1, c2, c3};
  const uint32_t mine[6] = {a0, a1, a2, a3, b0, b1};
  const auto* all = Emulator::Instance().Exchange(mine, 6);
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const auto half = [](uint32_t pair, int i) { return i ? HalfHigh(pair) : HalfLow(pair); };
  for (int c = 0; c < 4; ++c) {
    const int row = g + 8 * (c >> 1), column = 2 * t + (c & 1);
    float sum = start[c];
    for (int k = 0; k < 16; ++k) {
      const int quad = (k & 7) >> 1;
      sum += half(all[(row & 7) * 4 + quad][(row >> 3) + 2 * (k >> 3)], k & 1) *
             half(all[column * 4 + quad][4 + (k >> 3)], k & 1);
    }
    d[c] = sum;
  }
}
inline void MmaHalf(uint32_t& d0, uint32_t& d1, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                    uint32_t b0, uint32_t b1, uint32_t c0, uint32_t c1) {
  float d[4];
  MmaHalf(d, a0, a1, a2, a3, b0, b1, HalfLow(c0), HalfHigh(c0), HalfLow(c1), HalfHigh(c1));
  d0 = HalfPack(d[0], d[1]);
  d1 = HalfPack(d[2], d[3]);
}
inline void MmaHalf(uint32_t& d0, uint32_t& d1, uint32_t a0, uint32_t a1, uint32_t b0, uint32_t c0,
                    uint32_t c1) {
  MmaHalf(d0, d1, a0, a1, 0, 0, b0, 0, c0, c1);
}
inline void MmaHalf(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0, float c0, float c1,
                    float c2, float c3) {
  MmaHalf(d, a0, a1, 0, 0, b0, 0, c0, c1, c2, c3);
}
inline void MmaTf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                    uint32_t b1, float c0, float c1, float c2, float c3) {
  const float start[4] = {c0, c1, c2, c3};
  const uint32_t mine[6] = {a0, a1, a2, a3, b0, b1};
  const auto* all = Emulator::Instance().Exchange(mine, 6);
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  for (int c = 0; c < 4; ++c) {
    const int row = g + 8 * (c >> 1), column = 2 * t + (c & 1);
    float sum = start[c];
    for (int k = 0; k < 8; ++k) {
      const uint32_t a = all[(row & 7) * 4 + (k & 3)][(row >> 3) + 2 * (k >> 2)];
      const uint32_t b = all[column * 4 + (k & 3)][4 + (k >> 2)];
      sum += AsFloat(a & 0xffffe000u) * AsFloat(b & 0xffffe000u);
    }
    d[c] = sum;
  }
}
inline uint32_t TransposeHalf(uint32_t a) {
  const auto* all = Emulator::Instance().Exchange(&a, 1);
  const int lane = threadIdx.x & 31, row = lane >> 2, column = 2 * (lane & 3);
  const auto element = [&](int r, int c) {
    return all[r * 4 + c / 2][0] >> (c % 2 * 16) & 0xffffu;
  };
  return element(column, row) | element(column + 1, row) << 16;
}

inline void LaunchDependents() {}
inline void WaitForPrevious() {}
constexpr bool kStoresMatrices = true;
// What lane `lane` has of matrix i lies where lane 8 i + lane / 4 says.
inline unsigned char* MatrixWord(const uint32_t (*addresses)[8], int i, int lane) {
  uintptr_t address;
  std::memcpy(&address, addresses[8 * i + lane / 4], sizeof address);
  return reinterpret_cast<unsigned char*>(address) + lane % 4 * 4;
}
inline const uint32_t (*ExchangeAddresses(const void* row))[8] {
  uint32_t words[2];
  std::memcpy(words, &row, sizeof row);
  return Emulator::Instance().Exchange(words, 2);
}
inline void LoadMatrices(uint32_t (&m)[4], const void* row) {
  const auto* addresses = ExchangeAddresses(row);
  for (int i = 0; i < 4; ++i) std::memcpy(&m[i], MatrixWord(addresses, i, threadIdx.x & 31), 4);
}
inline void StoreMatrices(void* row, const uint32_t (&m)[4]) {
  const auto* addresses = ExchangeAddresses(row);
  for (int i = 0; i < 4; ++i) std::memcpy(MatrixWord(addresses, i, threadIdx.x & 31), &m[i], 4);
}

// A warp's rows of the product: of float a pair of columns, of halves a word.
template <int N, bool kFirst, class T, int kSize>
void MultiplyBricks(T (&d)[kSize], const uint32_t (&a)[4], const unsigned char* b,
                    int input_bytes = 16 * N) {
  constexpr bool kHalves = sizeof(T) == sizeof(uint32_t) && !std::is_same_v<T, float>;
  constexpr int kOutputs = kHalves ? 4 * kSize : 2 * kSize;
  const auto* bricks = reinterpret_cast<const uint16_t*>(b);
  const auto* all = Emulator::Instance().Exchange(a, 4);
  const int g = threadIdx.x >> 2 & 7, t = threadIdx.x & 3;
  for (int side = 0; side < 2; ++side) {
    float row[16];
    for (int k = 0; k < 16; ++k) {
      const uint32_t pair = all[g * 4 + (k & 7) / 2][side + 2 * (k >> 3)];
      row[k] = k & 1 ? HalfHigh(pair) : HalfLow(pair);
    }
    for (int j = 0; j < kOutputs / 8; ++j) {
      float sum[2];
      for (int e = 0; e < 2; ++e) {
        if constexpr (kHalves) {
          const uint32_t before = d[2 * j + side];
          sum[e] = kFirst ? 0.0f : e ? HalfHigh(before) : HalfLow(before);
        } else {
          sum[e] = kFirst ? 0.0f : d[4 * j + 2 * side + e];
        }
        const int n = 8 * j + 2 * t + e;
        for (int k = 0; k < 16; ++k)
          sum[e] += row[k] * HalfLow(bricks[(k >> 3) * (input_bytes / 2) + n * 8 + (k & 7)]);
      }
      if constexpr (kHalves) {
        d[2 * j + side] = HalfPack(sum[0], sum[1]);
      } else {
        d[4 * j + 2 * side] = sum[0];
        d[4 * j + 2 * side + 1] = sum[1];
      }
    }
  }
}
// Of 32 outputs each eight by themselves.
template <int N, bool kFirst>
void MultiplyBricks(float (&d)[4][4], const uint32_t (&a)[4], const unsigned char* b,
                    int input_bytes = 16 * N) {
  static_assert(N == 32);
  float flat[16] = {};
  if (!kFirst) std::memcpy(flat, d, sizeof flat);
  MultiplyBricks<N, kFirst>(flat, a, b, input_bytes);
  std::memcpy(d, flat, sizeof flat);
}
template <class T>
void KeepOrder(T&) {}
inline void BeginProducts() {}
inline void EndProducts() {}
inline void AwaitProducts() {}
template <bool kFirst, int kInputBytes>
void AddProduct(float (&d)[4][4], const uint32_t (&a)[4], const void* bricks, int offset) {
  MultiplyBricks<32, kFirst>(d, a, static_cast<const unsigned char*>(bricks) + offset, kInputBytes);
}
template <int N, bool kFirst, class T, int kSize, int kSteps>
void BeginRows(T (&d)[kSize], uint32_t (&a)[kSteps][4], const void* bricks) {
  const auto* b = static_cast<const unsigned char*>(bricks);
  for (int s = 0; s < kSteps; ++s) {
    if (kFirst && s == 0) {
      MultiplyBricks<N, true>(d, a[s], b + s * N * 32);
    } else {
      MultiplyBricks<N, false>(d, a[s], b + s * N * 32);
    }
  }
}
template <int N, bool kFirst, int kSteps, class T, int kSize>
void BeginRows(T (&d)[kSize], const void* rows, int panel_bytes, const void* bricks) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
  uint32_t a[kSteps][4];
  for (int s = 0; s < kSteps; ++s) {
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * warp + i % 2 * 8 + lane / 4, chunk = s % 4 * 2 + i / 2;
      std::memcpy(&a[s][i],
                  static_cast<const unsigned char*>(rows) + s / 4 * panel_bytes + row * 128 +
                      ((chunk ^ row) & 7) * 16 + lane % 4 * 4,
                  4);
    }
  }
  BeginRows<N, kFirst>(d, a, bricks);
}
template <int kPending, class T, int kSize>
void AwaitRows(T (&)[kSize]) {}
template <int kPending, class T, int kSize, int kSteps>
void AwaitRows(T (&)[kSize], uint32_t (&)[kSteps][4]) {}

template <class T>
T* Global(T* pointer) {
  return pointer;
}
inline void CopyAsync(void* shared, const void* source, bool inside) {
  if (inside) {
    std::memcpy(shared, source, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void CopyAsyncIf(bool wanted, void* shared, const void* source, bool inside) {
  if (wanted) CopyAsync(shared, source, inside);
}
inline void CopyCommit() {}
template <int kPending>
void CopyWait() {}

// Counts the turns that were begun: their copies happen at once.
inline void InitCopies(uint64_t* copies) { *copies = 0; }
inline void BeginCopy(void* shared, const void* source, int bytes, uint64_t*) {
  std::memcpy(shared, source, bytes);
}
struct BoxMap {
  const void* data = nullptr;
  int channels = 0, height = 0, width = 0;
};
inline void AnnounceCopies(uint64_t* copies, int) { ++*copies; }
template <int kColumns, int kRows>
void BeginBoxCopy(void* shared, const BoxMap& map, int channel, int column, int row, int image,
                  uint64_t*) {
  for (int i = 0; i < kColumns * kRows; ++i) {
    const int y = row + i / kColumns, x = column + i % kColumns;
    const bool inside = y >= 0 && y < map.height && x >= 0 && x < map.width;
    const size_t pixel = (static_cast<size_t>(image) * map.height + y) * map.width + x;
    for (int chunk = 0; chunk < 8; ++chunk) {
      CopyAsync(static_cast<unsigned char*>(shared) + i * 128 + ((chunk ^ i) & 7) * 16,
                static_cast<const unsigned char*>(map.data) +
                    (pixel * map.channels + channel + chunk * 8) * 2,
                inside);
    }
  }
}
inline void AwaitCopy(uint64_t* copies, int turn) {
  while (*copies <= static_cast<uint64_t>(turn)) Emulator::Instance().Yield();
}
inline void OrderCopies() {}

inline float ReciprocalSqrt(float value) { return 1.0f / std::sqrt(value); }
inline float Reciprocal(float value) { return 1.0f / value; }
inline float Exp2(float value) { return std::exp2(value); }

}  // namespace mstpp::cuda
