// SPDX-License-Identifier: Apache-2.0
// From S = X'X (channels x channels, over all pixels of one picture) to M, such that the attention
// of the S-MSA and its projection are one product: proj(attention(V)) = X M'.
//
//   q_j = Wq_j x, k_i = Wk_i x:  sum over pixels of k_i q_j = Wk_i S Wq_j'
//   |q_j|^2 = Wq_j S Wq_j',  |k_i|^2 = Wk_i S Wk_i'     (F.normalize's clamp: at least 1e-12)
//   A[i][j] = softmax over j of rescale * Wk_i S Wq_j' / (|k_i| |q_j|), within each head
//   M = Wproj blockdiag(A) Wv
//
// All in float64: c is at most a few hundred, and the sums cancel.
#include <algorithm>
#include <cmath>

#include "cpu/kernels.h"

#ifndef MSTPP_CPU_ATTENTION_MATRIX
#define MSTPP_CPU_ATTENTION_MATRIX
namespace mstpp::cpu {
// Row-major, `stride` from a row to the next.
struct Matrix {
  const double* data;
  size_t stride;
};
}  // namespace mstpp::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_matrix.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<double>;
using V = hn::Vec<D>;
constexpr size_t kLanes = hn::MaxLanes(D());

// out = a b for kRows rows of a and kVectors vectors of b's columns, accumulated in registers.
template <int kRows, int kVectors>
HWY_INLINE void MultiplyBlock(const Matrix& a, const Matrix& b, size_t inner, double* out,
                              size_t stride) {
  const D d;
  V acc[kRows][kVectors];
  for (auto& row : acc) {
    for (V& v : row) v = hn::Zero(d);
  }
  for (size_t k = 0; k < inner; ++k) {
    V bk[kVectors];
    for (int v = 0; v < kVectors; ++v) bk[v] = hn::LoadU(d, b.data + k * b.stride + v * kLanes);
    for (int m = 0; m < kRows; ++m) {
      const V am = hn::Set(d, a.data[m * a.stride + k]);
      for (int v = 0; v < kVectors; ++v) acc[m][v] = hn::MulAdd(am, bk[v], acc[m][v]);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(acc[m][v], d, out + m * stride + v * kLanes);
    }
  }
}

template <int kRows>
HWY_INLINE void MultiplyRows(const Matrix& a, const Matrix& b, size_t inner, size_t columns,
                             double* out, size_t stride) {
  size_t j = 0;
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) {
    MultiplyBlock<kRows, 2>(a, {b.data + j, b.stride}, inner, out + j, stride);
  }
  for (; j + kLanes <= columns; j += kLanes) {
    MultiplyBlock<kRows, 1>(a, {b.data + j, b.stride}, inner, out + j, stride);
  }
  for (; j < columns; ++j) {
    for (int m = 0; m < kRows; ++m) {
      double sum = 0;
      for (size_t k = 0; k < inner; ++k) sum += a.data[m * a.stride + k] * b.data[k * b.stride + j];
      out[m * stride + j] = sum;
    }
  }
}

// out (rows x columns, `stride` apart) = a (rows x inner) b (inner x columns).
void Multiply(Matrix a, const Matrix& b, size_t rows, size_t inner, size_t columns, double* out,
              size_t stride) {
  size_t i = 0;
  for (; i + 4 <= rows; i += 4, a.data += 4 * a.stride, out += 4 * stride) {
    MultiplyRows<4>(a, b, inner, columns, out, stride);
  }
  for (; i < rows; ++i, a.data += a.stride, out += stride) {
    MultiplyRows<1>(a, b, inner, columns, out, stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {
namespace {

HWY_EXPORT(Multiply);

double Dot(const double* a, const double* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// S is symmetric and the rounding of its partial sums may leave a square slightly below zero.
double Norm(const double* weight, const double* product, size_t n) {
  return std::max(std::sqrt(std::max(Dot(weight, product, n), 0.0)), 1e-12);
}

void SoftmaxRow(double* row, size_t n) {
  const double highest = *std::max_element(row, row + n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - highest);
  for (size_t i = 0; i < n; ++i) row[i] /= sum;
}

}  // namespace

void AttentionMatrix(const SpectralAttentionWeights& w, const std::vector<double>& gram,
                     std::vector<double>& scratch, Panels& product) {
  const size_t c = w.channels;
  const auto heads = static_cast<size_t>(w.heads);
  const size_t width = c / heads;
  scratch.resize(4 * c * c + c);
  double* qs = scratch.data();    // Wq S
  double* ks = qs + c * c;        // Wk S
  double* attended = ks + c * c;  // blockdiag(A) Wv
  double* m = attended + c * c;
  double* q_norm = m + c * c;
  const auto multiply = HWY_DYNAMIC_DISPATCH(Multiply);
  multiply({w.q.data(), c}, {gram.data(), c}, c, c, c, qs, c);
  multiply({w.k.data(), c}, {gram.data(), c}, c, c, c, ks, c);
  for (size_t j = 0; j < c; ++j) q_norm[j] = Norm(&w.q[j * c], &qs[j * c], c);
  for (size_t head = 0; head < heads; ++head) {
    const size_t first = head * width;
    double* attention = m;  // width x width, before m itself is needed
    multiply({&ks[first * c], c}, {&w.q_transposed[first], c}, width, c, width, attention, width);
    for (size_t i = 0; i < width; ++i) {
      double* row = &attention[i * width];
      const double k_norm = Norm(&w.k[(first + i) * c], &ks[(first + i) * c], c);
      for (size_t j = 0; j < width; ++j) row[j] *= w.rescale[head] / (k_norm * q_norm[first + j]);
      SoftmaxRow(row, width);
    }
    multiply({attention, width}, {&w.v[first * c], c}, width, width, c, &attended[first * c], c);
  }
  multiply({w.project.data(), c}, {attended, c}, c, c, c, m, c);
  for (size_t o = 0; o < c; ++o) {
    for (size_t i = 0; i < c; ++i) product.Set(i, o, static_cast<float>(m[o * c + i]));
  }
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
