// SPDX-License-Identifier: Apache-2.0
// gram and the kernels from S to M: see cuda_kernels_test.cc.
#define MSTPP_EMULATE_CUDA
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/attention_matrix.cuh"
#include "cuda_kernels_testing.h"

namespace mstpp::cuda::kernels_testing {
namespace {

template <int C>
void TestGram(int pixels, int blocks) {
  Generator generator(7);
  const Image x = Memory::Draw(generator, 1, pixels, C, C - C / 32);
  const auto bytes = Memory::Store(x);
  std::vector<float> partials(static_cast<size_t>(blocks) * C * C, NAN), s(C * C, NAN);
  const GramParams p{bytes.data(), partials.data(), pixels, blocks, 1};
  using Shape = Gram16Shape<C>;
  Emulator::Instance().Launch(blocks, Shape::kWarps * 32, Shape::kSharedBytes,
                              [&] { Gram16<C>(p).Run(); });
  const GramReduceParams r{partials.data(), s.data(), blocks, C * C, 1};
  Emulator::Instance().Launch(kReduceBlocks<C>, kReduceThreads, kReduceThreads * 16,
                              [&] { Gram16ReduceBody<C, GramParts::kRead>(r); });
  for (int i = 0; i < C; ++i) {
    for (int j = 0; j < C; ++j) {
      double sum = 0;
      for (int q = 0; q < pixels; ++q) sum += x.get(0, q, i) * x.get(0, q, j);
      ASSERT_NEAR(s[i * C + j], sum, 1e-5 * pixels) << i << " " << j;
    }
  }
}

TEST(KernelsTest, Gram) {
  TestGram<32>(200, 2);
  TestGram<64>(136, 2);
  TestGram<128>(40, 1);
}

template <MatrixForm kForm>
void RunAttentionMatrix(const AttentionParams& p, int blocks) {
  const int threads = AttentionMatrixThreads(p.channels);
  const int shared_bytes = AttentionShape(p.channels, p.heads, p.C, threads).size * 4;
  Emulator::Instance().Launch(blocks, threads, shared_bytes, [&] {
    if (threads == kAttentionThreads) {
      AttentionMatrixBody<kForm, kAttentionThreads>(p);
    } else {
      AttentionMatrixBody<kForm, kManyAttentionThreads>(p);
    }
  });
}

void TestAttentionMatrix(int heads, int width, int C) {
  const int n = heads * width, stride = (n + 3) / 4 * 4;
  Generator generator(8);
  const int pixels = 500;
  const Doubles x = generator.Draw(pixels * n, 1.0);
  const Doubles wq = generator.Draw(n * n, 0.2), wk = generator.Draw(n * n, 0.2),
                wv = generator.Draw(n * n, 0.2), wp = generator.Draw(n * n, 0.2);
  const std::vector<float> rescale = {3.0f, 5.0f, 2.0f, 4.0f};
  std::vector<float> bias(n, 0.5f), s(C * C, 0.f), logits(AttentionFloats(n, heads), NAN);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < pixels; ++p) sum += x[p * n + i] * x[p * n + j];
      s[i * C + j] = static_cast<float>(sum);
    }
  }
  const auto matrix = [&](const Doubles& w, bool transposed) {
    std::vector<float> padded(n * stride + 16, 0.f);
    for (int o = 0; o < n; ++o) {
      for (int i = 0; i < n; ++i) {
        padded[transposed ? i * stride + o : o * stride + i] = static_cast<float>(w[o * n + i]);
      }
    }
    return padded;
  };
  const auto q = matrix(wq, true), k = matrix(wk, true), v = matrix(wv, false),
             pr = matrix(wp, true);
  std::vector<float> plain(C * C, NAN);
  std::vector<uint16_t> tiles(C * C, 0x7e00), bricks = tiles;  // NaN
  AttentionParams p{.s = s.data(),
                    .wq = q.data(),
                    .wk = k.data(),
                    .wv = v.data(),
                    .wproj = pr.data(),
                    .rescale = rescale.data(),
                    .bias = bias.data(),
                    .logits = logits.data(),
                    .matrix = plain.data(),
                    .channels = n,
                    .heads = heads,
                    .C = C,
                    .images = 1,
                    .stride = stride};
  const int shared_bytes = AttentionShape(n, heads, C, kAttentionThreads).size * 4;
  Emulator::Instance().Launch(AttentionLogitsBlocks(n, heads), kAttentionThreads, shared_bytes,
                              [&] { AttentionLogitsBody(p); });
  RunAttentionMatrix<MatrixForm::kPlain>(p, C / kAttentionRows);
  p.matrix = tiles.data();
  RunAttentionMatrix<MatrixForm::kHalfTiles>(p, C / kAttentionRows);
  p.matrix = bricks.data();
  RunAttentionMatrix<MatrixForm::kHalfBricks>(p, C / kAttentionRows);

  // As published: queries and keys of every pixel.
  const auto project = [&](const Doubles& w) {
    Doubles y(pixels * n, 0.0);
    for (int a = 0; a < pixels; ++a) {
      for (int o = 0; o < n; ++o) {
        for (int i = 0; i < n; ++i) y[a * n + o] += w[o * n + i] * x[a * n + i];
      }
    }
    return y;
  };
  const Doubles queries = project(wq), keys = project(wk);
  Doubles expected(n * n, 0.0);
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < width; ++i) {
      Doubles logits(width);
      double largest = -1e30;
      for (int j = 0; j < width; ++j) {
        double dot = 0, qq = 0, kk = 0;
        for (int a = 0; a < pixels; ++a) {
          const double qa = queries[a * n + h * width + j], ka = keys[a * n + h * width + i];
          dot += qa * ka;
          qq += qa * qa;
          kk += ka * ka;
        }
        logits[j] = rescale[h] * dot / std::sqrt(qq * kk);
        largest = std::max(largest, logits[j]);
      }
      double sum = 0;
      for (double& l : logits) sum += l = std::exp(l - largest);
      for (int o = 0; o < n; ++o) {
        for (int j = 0; j < width; ++j) {
          for (int c = 0; c < n; ++c) {
            expected[o * n + c] +=
                wp[o * n + h * width + i] * logits[j] / sum * wv[(h * width + j) * n + c];
          }
        }
      }
    }
  }
  for (int o = 0; o < C; ++o) {
    for (int c = 0; c < C; ++c) {
      const double wanted = o < n && c < n ? expected[o * n + c] : 0.0;
      ASSERT_NEAR(plain[(c / 16 * C + o) * 16 + c % 16], wanted, 1e-5) << o << " " << c;
      const double tile = o < n && c == C - 1 ? 0.5 : wanted;
      ASSERT_NEAR(HalfLow(tiles[TileWeight(o, c, C / 32)]), tile, 1e-3) << o << " " << c;
      ASSERT_EQ(bricks[BrickWeight(o, c, C)], tiles[TileWeight(o, c, C / 32)]) << o << " " << c;
    }
  }
}

TEST(KernelsTest, AttentionMatrix) {
  TestAttentionMatrix(2, 31, 64);
  TestAttentionMatrix(4, 31, 128);
  TestAttentionMatrix(1, 70, 96);  // the softmax in two parts, beside a staged factor
}

// Rows of the softmax longer than the product's parts have room for.
TEST(KernelsTest, SoftmaxOfManyBands) {
  const int n = 520, pixels = 20;
  Generator generator(11);
  const Doubles x = generator.Draw(pixels * n, 1.0);
  std::vector<float> s(n * n), w(n * n, 0.f), logits(AttentionFloats(n, 1), NAN);
  std::vector<float> matrix((n + 15) / 16 * 16 * n, NAN);
  for (int i = 0; i < n; ++i) {
    w[i * n + i] = 1.0f;  // queries, keys and values are the channels themselves
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < pixels; ++p) sum += x[p * n + i] * x[p * n + j];
      s[i * n + j] = static_cast<float>(sum);
    }
  }
  const float rescale = 4.0f;
  const AttentionParams p{.s = s.data(),
                          .wq = w.data(),
                          .wk = w.data(),
                          .wv = w.data(),
                          .wproj = w.data(),
                          .rescale = &rescale,
                          .bias = nullptr,
                          .logits = logits.data(),
                          .matrix = matrix.data(),
                          .channels = n,
                          .heads = 1,
                          .C = n,
                          .images = 1,
                          .stride = n};
  const int shared_bytes = AttentionShape(n, 1, n, kAttentionThreads).size * 4, blocks = 3;
  Emulator::Instance().Launch(AttentionLogitsBlocks(n, 1), kAttentionThreads, shared_bytes,
                              [&] { AttentionLogitsBody(p); });
  RunAttentionMatrix<MatrixForm::kPlain>(p, blocks);
  for (int i = 0; i < blocks * kAttentionRows; ++i) {
    Doubles expected(n);
    double sum = 0;
    for (int j = 0; j < n; ++j) {
      const double norms = std::sqrt(static_cast<double>(s[i * n + i]) * s[j * n + j]);
      sum += expected[j] = std::exp(rescale * s[i * n + j] / norms);
    }
    for (int j = 0; j < n; ++j) {
      ASSERT_NEAR(matrix[(j / 16 * n + i) * 16 + j % 16], expected[j] / sum, 1e-6);
    }
  }
}

}  // namespace
}  // namespace mstpp::cuda::kernels_testing
