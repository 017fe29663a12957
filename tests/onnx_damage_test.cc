// SPDX-License-Identifier: Apache-2.0
// Damaged ONNX files: an Error or the same weights. A file of PyTorch's has no checksum: a change
// among a weight's own numbers stays unseen there, and shows in that place only.
#include <random>
#include <string_view>
#include <vector>

#include "model/network.h"
#include "mstpp/error.h"
#include "mstpp/model.h"
#include "onnx/export.h"
#include "onnx_testing.h"

namespace mstpp::testing {
namespace {

// PyTorch's files, "raw" and "simplified", and this program's (one stage, to keep the tests short).
class OnnxDamage : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string kind = GetParam();
    has_checksum_ = kind != "raw" && kind != "simplified";
    if (!has_checksum_) {
      bytes_ = Slurp(GoldenFile("mstpp_seed0_1x3x24x40_" + kind + ".onnx"));
      return;
    }
    const Model model = Model::Load(GoldenFile("stress_one_stage.pth"));
    OnnxOptions options;
    if (kind == "half") options.precision = Precision::kFP16;
    if (kind == "restructured") options.form = AttentionForm::kRestructured;
    bytes_ = BuildOnnx(model, options);
  }

  std::string bytes_;
  bool has_checksum_ = false;
};
INSTANTIATE_TEST_SUITE_P(Files, OnnxDamage,
                         ::testing::Values("raw", "simplified", "published", "restructured",
                                           "half"),
                         [](const auto& info) { return std::string(info.param); });

// Where the numbers of the constants lie.
std::vector<bool> NumbersOf(const std::string& bytes) {
  std::vector<bool> numbers(bytes.size());
  const auto mark = [&](const onnx::Tensor& tensor) {
    const size_t at = bytes.find(tensor.raw_data());
    if (tensor.raw_data().empty() || at == std::string::npos) return;
    std::fill_n(numbers.begin() + static_cast<ptrdiff_t>(at), tensor.raw_data().size(), true);
  };
  const onnx::Model model = ParseOnnx(bytes);
  for (const onnx::Tensor& tensor : model.graph().initializer()) mark(tensor);
  for (const onnx::Node& node : model.graph().node()) {
    for (const onnx::Attribute& attribute : node.attribute()) mark(attribute.t());
  }
  return numbers;
}

// Tensors that share a constant change together, each in one place.
bool DiffersInOnePlaceEach(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end() || tensor.shape != other->second.shape) return false;
    int places = 0;
    for (size_t i = 0; i < tensor.data.size(); ++i) {
      places += tensor.data[i] == other->second.data[i] ? 0 : 1;
    }
    if (places > 1) return false;
  }
  return true;
}

std::string Complaint(const std::string& damaged, const StateDict& intact, bool in_numbers) {
  try {
    const StateDict tensors = ReadOnnxBytes(damaged).tensors;
    const std::string difference = Difference(tensors, intact);
    return in_numbers && DiffersInOnePlaceEach(tensors, intact) ? "" : difference;
  } catch (const Error& error) {
    const bool expected =
        error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kUnsupported;
    return expected ? "" : std::string("unexpected code: ") + error.what();
  }
}

TEST_P(OnnxDamage, FilesCut) {
  const std::string_view whole = bytes_;
  for (size_t length = 0; length < bytes_.size(); length += 1000) {
    // Copies, so that AddressSanitizer sees every step beyond the end.
    EXPECT_THROW(ReadOnnxBytes(std::string(whole.substr(0, length))), Error) << length;
  }
}

TEST_P(OnnxDamage, BytesReplaced) {
  const StateDict intact = ReadOnnxBytes(bytes_).tensors;
  const std::vector<bool> numbers = NumbersOf(bytes_);
  std::mt19937 random(4);
  for (int round = 0; round < MSTPP_ONNX_FLIPS; ++round) {
    // Every other time where the structure lies: a tenth of the file.
    size_t at = random() % bytes_.size();
    while (round % 2 == 0 && numbers[at]) at = random() % bytes_.size();
    std::string damaged = bytes_;
    damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1 + random() % 255));
    EXPECT_EQ(Complaint(damaged, intact, numbers[at] && !has_checksum_), "") << "byte " << at;
  }
}

}  // namespace
}  // namespace mstpp::testing
