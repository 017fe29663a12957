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

// out[i] += a * x[i]
void AddScaled(double a, const double* HWY_RESTRICT x, double* HWY_RESTRICT out, size_t n) {
  const hn::ScalableTag<double> d;
  const auto factor = hn::Set(d, a);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, x + i), hn::LoadU(d, out + i)), d, out + i);
  }
  for (; i < n; ++i) out[i] += a * x[i];
}

// out (rows x n) = a (rows x inner) b (inner x n), row-major; `lda` apart in a.
void Multiply(const double* a, size_t lda, const double* b, double* out, size_t rows, size_t inner,
              size_t n) {
  std::fill_n(out, rows * n, 0.0);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t k = 0; k < inner; ++k) AddScaled(a[i * lda + k], b + k * n, out + i * n, n);
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
  scratch.resize(4 * c * c);
  double* qs = scratch.data();    // Wq S
  double* ks = qs + c * c;        // Wk S
  double* attended = ks + c * c;  // blockdiag(A) Wv
  double* m = attended + c * c;
  const auto multiply = HWY_DYNAMIC_DISPATCH(Multiply);
  multiply(w.q.data(), c, gram.data(), qs, c, c, c);
  multiply(w.k.data(), c, gram.data(), ks, c, c, c);
  for (size_t head = 0; head < heads; ++head) {
    const size_t first = head * width;
    double* attention = m;  // width x width, before m itself is needed
    for (size_t i = 0; i < width; ++i) {
      const double* k = &ks[(first + i) * c];
      const double k_norm = Norm(&w.k[(first + i) * c], k, c);
      for (size_t j = 0; j < width; ++j) {
        const double* q = &w.q[(first + j) * c];
        const double q_norm = Norm(q, &qs[(first + j) * c], c);
        attention[i * width + j] = w.rescale[head] * Dot(k, q, c) / (k_norm * q_norm);
      }
      SoftmaxRow(&attention[i * width], width);
    }
    multiply(attention, width, &w.v[first * c], &attended[first * c], width, width, c);
  }
  multiply(w.project.data(), c, attended, m, c, c, c);
  for (size_t o = 0; o < c; ++o) {
    for (size_t i = 0; i < c; ++i) product.Set(i, o, static_cast<float>(m[o * c + i]));
  }
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
