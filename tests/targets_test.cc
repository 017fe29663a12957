// SPDX-License-Identifier: Apache-2.0
// The CPU backend in every instruction set that this machine has and the build holds.
#include "hwy/targets.h"

#include <gtest/gtest.h>

#include "backend_testing.h"
#include "cpu/kernels.h"
#include "mstpp/model.h"

namespace mstpp::testing {
namespace {

TEST(TargetsTest, EveryInstructionSetAgreesWithReference) {
  const Model model = Model::Random({.stages = 1}, 40);
  const Array input = RandomArray(1, 3, 43, 141, 41);
  const Array expected = RunBackend(*MakeBackend("reference", model), model, input);
  const double tolerance = 5e-6 * LargestMagnitude(expected.data);
  int tested = 0;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(cpu::TargetName());
    const Array output = RunBackend(*MakeBackend("cpu", model), model, input);
    EXPECT_LE(LargestError(output.data, expected.data), tolerance);
    ++tested;
  }
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_GE(tested, 1);
}

}  // namespace
}  // namespace mstpp::testing
