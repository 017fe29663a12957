// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, to judge a benchmark by.
#pragma once

namespace mstpp::cpu {

// `threads` 0: all that the process may use.
//
// A float32 product of 768 x 768 matrices that stays in the caches, packed and blocked as BLAS
// libraries do it; the best of many, in floating-point operations a second (two a
// multiply-accumulate).
double MeasureGemm(int threads);

// memcpy of arrays far larger than the caches; bytes read and written a second.
double MeasureCopy(int threads);

}  // namespace mstpp::cpu
