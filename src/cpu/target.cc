// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/target.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mstpp {
namespace cpu {
namespace HWY_NAMESPACE {

size_t ThisPanelWidth() { return kPanel; }
const char* ThisTargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace cpu
}  // namespace mstpp
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mstpp::cpu {

HWY_EXPORT(ThisPanelWidth);
HWY_EXPORT(ThisTargetName);

size_t PanelWidth() { return HWY_DYNAMIC_DISPATCH(ThisPanelWidth)(); }

std::string TargetName() {
  const std::string name = HWY_DYNAMIC_DISPATCH(ThisTargetName)();
  return name.starts_with("AVX3") ? "AVX-512" : name;
}

}  // namespace mstpp::cpu
#endif  // HWY_ONCE
