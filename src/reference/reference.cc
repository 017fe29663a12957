// SPDX-License-Identifier: Apache-2.0
#include "reference/reference.h"

#include <utility>
#include <vector>

#include "engine/profile.h"
#include "model/network.h"
#include "model/padding.h"
#include "reference/blocks.h"

namespace mstpp {
namespace {

using reference::Map;

Map PadInput(const TensorView& input, int64_t image, int64_t multiple, Padding padding) {
  Map x(RoundUp(input.h, multiple), RoundUp(input.w, multiple), input.c);
  for (int64_t r = 0; r < x.height; ++r) {
    for (int64_t c = 0; c < x.width; ++c) {
      if (padding == Padding::kZero && (r >= input.h || c >= input.w)) continue;
      const float* pixel = input.data + image * input.stride_n +
                           Reflect(r, input.h) * input.stride_h +
                           Reflect(c, input.w) * input.stride_w;
      for (int64_t k = 0; k < input.c; ++k) x.at(r, c)[k] = pixel[k * input.stride_c];
    }
  }
  return x;
}

Map RunNode(const Node& node, const StateDict& tensors, const std::vector<Map>& values) {
  const Map& x = values[node.input];
  switch (node.op) {
    case Op::kConv3x3: {
      Map y = reference::Conv(x, tensors.at(node.name + ".weight"), 1);
      if (node.extra >= 0) {
        for (size_t i = 0; i < y.data.size(); ++i) y.data[i] += values[node.extra].data[i];
      }
      return y;
    }
    case Op::kSpectralAttention:
      return reference::SpectralAttention(x, tensors, node.name, node.heads);
    case Op::kFeedForward:
      return reference::FeedForward(x, tensors, node.name);
    case Op::kDownsample:
      return reference::Conv(x, tensors.at(node.name + ".weight"), 2);
    case Op::kUpsampleFuse:
      return reference::UpsampleFuse(x, values[node.extra], tensors.at(node.name + ".weight"),
                                     tensors.at(node.name + ".bias"),
                                     tensors.at(node.name2 + ".weight"));
  }
  return {};
}

void HandOver(const Engine::Tap& tap, const std::string& name, const Map& map) {
  const std::vector<float> values(map.data.begin(), map.data.end());
  tap(name, TensorView::Nhwc(values.data(), 1, map.channels, map.height, map.width));
}

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(Model model) : model_(std::move(model)) {}

  std::unique_ptr<Scratch> NewScratch() const override { return std::make_unique<Scratch>(); }
  std::string Description() const override { return "scalar float64"; }

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding,
           Scratch& scratch) const override {
    RunWithTaps(input, output, padding, scratch, nullptr);
  }

  // Maps are not reused: this backend is there to be read.
  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   Scratch&, const Engine::Tap& tap) const override {
    const Network& network = model_.network();
    const Graph& graph = network.graph;
    for (int64_t image = 0; image < input.n; ++image) {
      std::vector<Map> values(graph.values.size());
      values[graph.input] = PadInput(input, image, network.config.padding_multiple(), padding);
      for (const Node& node : graph.nodes) {
        values[node.output] = RunNode(node, network.tensors, values);
        if (tap) HandOver(tap, node.tap_name(), values[node.output]);
      }
      Crop(values[graph.output], output, image);
    }
  }

  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  Padding padding, Scratch& scratch, int warm_up,
                                  int runs) const override {
    return ProfileByTaps(*this, model_.network().graph, input, output, padding, scratch, warm_up,
                         runs);
  }

 private:
  static void Crop(const Map& y, const MutableTensorView& output, int64_t image) {
    for (int64_t r = 0; r < output.h; ++r) {
      for (int64_t c = 0; c < output.w; ++c) {
        float* pixel =
            output.data + image * output.stride_n + r * output.stride_h + c * output.stride_w;
        for (int64_t k = 0; k < output.c; ++k) {
          pixel[k * output.stride_c] = static_cast<float>(y.at(r, c)[k]);
        }
      }
    }
  }

  Model model_;
};

}  // namespace

BackendStatus QueryReference(int) {
  return {.name = "reference",
          .usable = true,
          .detail = "scalar float64",
          .remedy = "",
          .precisions = {Precision::kFP32}};
}

std::unique_ptr<Backend> CreateReferenceBackend(const Model& model, const Options&, int) {
  return std::make_unique<ReferenceBackend>(model);
}

}  // namespace mstpp
