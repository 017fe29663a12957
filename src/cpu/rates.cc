// SPDX-License-Identifier: Apache-2.0
#include "cpu/rates.h"

#include <chrono>
#include <cstring>
#include <limits>

#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rates.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

// y += A B for a block of A (rows x inner, lda apart), `inner` of B's rows and all of its panels.
// The block of A stays in the L2 cache while B's panels pass through L1.
void MultiplyBlock(const float* a, size_t lda, size_t rows, size_t first, size_t inner,
                   const Panels& b, float* y, size_t ldy) {
  for (size_t panel = 0; panel < b.count(); ++panel) {
    const float* weights = b.panel(panel) + first * kPanel;
    ForPixelBlocks(rows, [&](auto count, size_t i) HWY_ATTR {
      constexpr int kRows = decltype(count)::value;
      V acc[kRows][2];
      ZeroAccumulators(acc);
      AddRows(y + i * ldy + panel * kPanel, ldy, acc);
      for (size_t k = 0; k < inner; k += 32) {
        MulAdd<kRows, 32>(a + i * lda + k, lda, weights + k * kPanel, acc);
      }
      StoreRows(acc, y + i * ldy + panel * kPanel, ldy);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>

namespace mstpp::cpu {

HWY_EXPORT(MultiplyBlock);

namespace {

// The shortest of `runs`: others on the machine can only lengthen one.
template <class F>
double BestSeconds(int runs, const F& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

}  // namespace

double MeasureGemm(int threads) {
  constexpr size_t kSide = 768;  // short, so that some runs are not interrupted
  constexpr size_t kInner = 256;
  constexpr size_t kRows = 48;
  AlignedBuffer a(kSide * kSide);  // in blocks of kRows x kInner, 48 KiB
  AlignedBuffer y(kSide * kSide);
  Panels b(kSide, kSide);
  for (size_t i = 0; i < kSide; ++i) {
    for (size_t j = 0; j < kSide; ++j) {
      a.data()[i * kSide + j] = static_cast<float>((i * 7 + j * 3) % 11) - 5.0f;
      b.Set(i, j, static_cast<float>((i * 5 + j) % 13) - 6.0f);
    }
  }
  const auto multiply = HWY_DYNAMIC_DISPATCH(MultiplyBlock);
  tbb::task_arena arena(threads > 0 ? threads : tbb::task_arena::automatic);
  const double seconds = arena.execute([&] {
    return BestSeconds(40, [&] {
      tbb::parallel_for(size_t{0}, kSide / kRows, [&](size_t block) {
        const size_t row = block * kRows;
        for (size_t k = 0; k < kSide; k += kInner) {
          multiply(a.data() + row * kSide + k * kRows, kInner, kRows, k, kInner, b,
                   y.data() + row * kSide, kSide);
        }
      });
    });
  });
  return 2.0 * kSide * kSide * kSide / seconds;
}

double MeasureCopy(int threads) {
  constexpr size_t kFloats = size_t{32} << 20;  // 128 MiB
  AlignedBuffer from(kFloats);
  AlignedBuffer to(kFloats);
  tbb::task_arena arena(threads > 0 ? threads : tbb::task_arena::automatic);
  const double seconds = arena.execute([&] {
    return BestSeconds(5, [&] {
      constexpr size_t kPieces = 64;
      constexpr size_t kPiece = kFloats / kPieces;
      tbb::parallel_for(size_t{0}, kPieces, [&](size_t i) {
        std::memcpy(to.data() + i * kPiece, from.data() + i * kPiece, kPiece * sizeof(float));
      });
    });
  });
  return 2.0 * kFloats * sizeof(float) / seconds;
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
