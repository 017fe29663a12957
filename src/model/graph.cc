// SPDX-License-Identifier: Apache-2.0
#include "model/graph.h"

#include <utility>

#include "model/graph_builder.h"

namespace mstpp {

int GraphBuilder::Append(Node node, Value output) {
  node.output = static_cast<int>(graph_.values.size());
  graph_.values.push_back(output);
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().output;
}

int GraphBuilder::Input() {
  graph_.values.push_back({0, config_.in_channels});
  graph_.input = static_cast<int>(graph_.values.size()) - 1;
  return graph_.input;
}

int GraphBuilder::Conv3x3(const std::string& name, int x, int residual) {
  return Append({.op = Op::kConv3x3, .name = name, .input = x, .extra = residual},
                {value(x).level, config_.bands});
}

int GraphBuilder::SpectralAttention(const std::string& name, int x) {
  return Append({.op = Op::kSpectralAttention,
                 .name = name,
                 .input = x,
                 .heads = value(x).channels / config_.bands},
                value(x));
}

int GraphBuilder::FeedForward(const std::string& name, int x) {
  return Append({.op = Op::kFeedForward, .name = name, .input = x}, value(x));
}

int GraphBuilder::Downsample(const std::string& name, int x) {
  return Append({.op = Op::kDownsample, .name = name, .input = x},
                {value(x).level + 1, value(x).channels * 2});
}

int GraphBuilder::UpsampleFuse(const std::string& up_name, const std::string& fusion_name, int x,
                               int skip) {
  return Append(
      {.op = Op::kUpsampleFuse, .name = up_name, .input = x, .extra = skip, .name2 = fusion_name},
      value(skip));
}

Graph GraphBuilder::Finish(int output) {
  graph_.output = output;
  return std::move(graph_);
}

const char* Stem(Op op) {
  switch (op) {
    case Op::kConv3x3:
      return "conv3x3";
    case Op::kSpectralAttention:
      return "spectral_attention";
    case Op::kFeedForward:
      return "feed_forward";
    case Op::kDownsample:
      return "downsample";
    case Op::kUpsampleFuse:
      return "upsample_fuse";
  }
  return "";
}

}  // namespace mstpp
