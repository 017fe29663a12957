// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu.h"

#include <fmt/format.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/plan.h"
#include "engine/profile.h"
#include "model/network.h"
#include "model/padding.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using cpu::AlignedBuffer;
using cpu::Map;
using cpu::Panels;
using cpu::Plan;
using cpu::Tile;
using cpu::TileGrid;

using Weights =
    std::variant<cpu::Conv3x3Weights, cpu::SpectralAttentionWeights, cpu::FeedForwardWeights,
                 cpu::DownsampleWeights, cpu::UpsampleFuseWeights>;

// Whether a value's height and width are even for every size of picture.
bool AlwaysEven(const Network& network, int value) {
  return (network.config.padding_multiple() >> network.graph.values[value].level) % 2 == 0;
}

Weights Pack(const Network& network, const Node& node) {
  const StateDict& tensors = network.tensors;
  const auto tensor = [&](const std::string& suffix) -> const Tensor& {
    return tensors.at(node.name + suffix);
  };
  switch (node.op) {
    case Op::kConv3x3:
      return cpu::Conv3x3Weights(tensor(".weight"));
    case Op::kSpectralAttention:
      return cpu::SpectralAttentionWeights(tensors, node.name, node.heads);
    case Op::kFeedForward:
      return cpu::FeedForwardWeights(tensors, node.name);
    case Op::kDownsample:
      return cpu::DownsampleWeights(tensor(".weight"), AlwaysEven(network, node.output));
    case Op::kUpsampleFuse:
      return cpu::UpsampleFuseWeights(tensor(".weight"), tensor(".bias"),
                                      tensors.at(node.name2 + ".weight"));
  }
  throw Error(ErrorCode::kInternal, node.name, "unknown block");
}

size_t WorkFloats(const Weights& weights) {
  struct Visitor {
    size_t operator()(const cpu::Conv3x3Weights& w) const { return Conv3x3Work(w); }
    size_t operator()(const cpu::SpectralAttentionWeights& w) const {
      return SpectralAttentionWork(w);
    }
    size_t operator()(const cpu::FeedForwardWeights& w) const { return FeedForwardWork(w); }
    size_t operator()(const cpu::DownsampleWeights& w) const { return DownsampleWork(w); }
    size_t operator()(const cpu::UpsampleFuseWeights& w) const { return UpsampleFuseWork(w); }
  };
  return std::visit(Visitor(), weights);
}

// Memory of one run at a time, for the last padded size it saw.
struct CpuScratch final : Scratch {
  std::unique_ptr<Plan> plan;
  AlignedBuffer arena, picture, partial_grams;
  std::vector<AlignedBuffer> work;  // a thread
  std::vector<double> gram;         // S of the value last written, channels x channels
  std::vector<double> attention;
  std::vector<Panels> products;  // M' by number of channels: [level]
};

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "CPU";
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(Model model, int threads)
      : model_(std::move(model)),
        threads_(threads),
        limit_(tbb::global_control::max_allowed_parallelism,
               static_cast<size_t>(std::max(threads, tbb::info::default_concurrency()))),
        arena_(threads) {
    const Graph& graph = network().graph;
    for (const Node& node : graph.nodes) weights_.push_back(Pack(network(), node));
    // The residual of conv_out is conv_in's output: three input channels are cheaper to convolve
    // again than a whole map is to keep.
    const Node& first = graph.nodes.front();
    if (!std::get<cpu::Conv3x3Weights>(weights_.front()).winograd) recomputed_ = first.output;
    const auto channels = static_cast<int64_t>(network().config.in_channels);
    picture_pixel_ = static_cast<size_t>(
        RoundUp(channels, recomputed_ >= 0 ? 4 : static_cast<int64_t>(cpu::PanelWidth())));
    for (const Weights& weights : weights_) {
      work_floats_ = std::max(work_floats_, WorkFloats(weights));
    }
  }

  std::unique_ptr<Scratch> NewScratch() const override { return std::make_unique<CpuScratch>(); }

  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  Padding padding, Scratch& scratch, int warm_up,
                                  int runs) const override {
    return ProfileByTaps(*this, network().graph, input, output, padding, scratch, warm_up, runs);
  }

  std::string Description() const override {
    return fmt::format("{}, {}, {} thread{}", CpuName(), cpu::TargetName(), threads_,
                       threads_ == 1 ? "" : "s");
  }

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding,
           Scratch& scratch) const override {
    RunWithTaps(input, output, padding, scratch, nullptr);
  }

  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   Scratch& scratch, const Engine::Tap& tap) const override {
    auto& s = static_cast<CpuScratch&>(scratch);
    Prepare(s, static_cast<size_t>(RoundUp(input.h, network().config.padding_multiple())),
            static_cast<size_t>(RoundUp(input.w, network().config.padding_multiple())));
    for (int64_t n = 0; n < input.n; ++n) {
      TensorView image = input;
      image.data += n * input.stride_n;
      MutableTensorView planes = output;
      planes.data += n * output.stride_n;
      arena_.execute([&] { RunImage(image, planes, padding, s, tap); });
    }
  }

 private:
  const Network& network() const { return model_.network(); }

  void Prepare(CpuScratch& s, size_t height, size_t width) const {
    if (s.plan != nullptr && s.plan->height == height && s.plan->width == width) return;
    const Graph& graph = network().graph;
    s.plan.reset();  // stays null if memory runs out below
    auto plan = std::make_unique<Plan>(graph, height, width, cpu::PanelWidth(), recomputed_);
    s.arena = AlignedBuffer();  // before the new one is allocated
    s.arena = AlignedBuffer(plan->arena_floats);
    s.picture = AlignedBuffer(cpu::MapFloats(height, width, picture_pixel_));
    s.work.clear();
    for (int i = 0; i < threads_; ++i) s.work.emplace_back(work_floats_);
    size_t partial = 0;
    s.products.clear();
    const Config& config = network().config;
    for (int level = 0; level <= config.levels(); ++level) {
      const auto channels = static_cast<size_t>(config.channels(level));
      s.products.emplace_back(channels, channels);
      const size_t pixel = s.products.back().count() * cpu::PanelWidth();
      partial = std::max(partial, Grid(height, width, level).count() * pixel * pixel);
    }
    s.partial_grams = AlignedBuffer(partial);
    s.plan = std::move(plan);
  }

  static TileGrid Grid(size_t height, size_t width, int level) {
    return {static_cast<ptrdiff_t>(height >> level), static_cast<ptrdiff_t>(width >> level)};
  }

  void RunImage(const TensorView& image, const MutableTensorView& planes, Padding padding,
                CpuScratch& s, const Engine::Tap& tap) const {
    const Graph& graph = network().graph;
    const auto channels = static_cast<size_t>(network().config.in_channels);
    const Map picture =
        cpu::MakeMap(s.picture.data(), s.plan->height, s.plan->width, channels, picture_pixel_);
    FillPicture(image, padding, picture);
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const Node& node = graph.nodes[n];
      if (node.output == graph.output) break;
      // Whoever writes the input of an S-MSA sums its gram matrix.
      const bool gram = graph.nodes[n + 1].op == Op::kSpectralAttention;
      RunNode(n, picture, gram, s);
      if (tap) HandOver(tap, node, s.plan->MapOf(graph, node.output, s.arena.data()));
    }
    RunLast(picture, planes, s, tap);
  }

  void RunNode(size_t n, const Map& picture, bool gram, CpuScratch& s) const {
    const Graph& graph = network().graph;
    const Node& node = graph.nodes[n];
    const auto map = [&](int value) {
      return value == graph.input ? picture : s.plan->MapOf(graph, value, s.arena.data());
    };
    const Map x = map(node.input);
    const Map extra = node.extra >= 0 ? map(node.extra) : Map{};
    const Map y = map(node.output);
    const TileGrid grid(y.height, y.width);
    const size_t gram_floats = y.pixel * y.pixel;
    cpu::ZeroBorder(y);
    if (node.op == Op::kSpectralAttention) {
      AttentionMatrix(std::get<cpu::SpectralAttentionWeights>(weights_[n]), s.gram, s.attention,
                      s.products[graph.values[node.input].level]);
    }
    ForTiles(grid, s, [&](size_t i, const Tile& tile, float* work) {
      float* sum = gram ? s.partial_grams.data() + i * gram_floats : nullptr;
      if (gram) std::fill_n(sum, gram_floats, 0.0f);
      switch (node.op) {
        case Op::kConv3x3:
          Conv3x3(std::get<cpu::Conv3x3Weights>(weights_[n]), x,
                  {.map = node.extra >= 0 ? &extra : nullptr}, y, nullptr, tile, sum, work);
          break;
        case Op::kSpectralAttention:
          SpectralAttention(std::get<cpu::SpectralAttentionWeights>(weights_[n]),
                            s.products[graph.values[node.input].level], x, y, tile, work);
          break;
        case Op::kFeedForward:
          FeedForward(std::get<cpu::FeedForwardWeights>(weights_[n]), x, y, tile, sum, work);
          break;
        case Op::kDownsample:
          Downsample(std::get<cpu::DownsampleWeights>(weights_[n]), x, y, tile, sum, work);
          break;
        case Op::kUpsampleFuse:
          UpsampleFuse(std::get<cpu::UpsampleFuseWeights>(weights_[n]), x, extra, y, tile, sum,
                       work);
          break;
      }
    });
    if (gram) ReduceGram(y, grid.count(), s);
  }

  // conv_out writes planes; only the tiles that hold something of the uncropped picture run.
  void RunLast(const Map& picture, const MutableTensorView& planes, CpuScratch& s,
               const Engine::Tap& tap) const {
    const Graph& graph = network().graph;
    const Node& node = graph.nodes.back();
    const auto& weights = std::get<cpu::Conv3x3Weights>(weights_.back());
    const Map x = s.plan->MapOf(graph, node.input, s.arena.data());
    const Map a = recomputed_ >= 0 ? Map{} : s.plan->MapOf(graph, node.extra, s.arena.data());
    const cpu::Residual residual =
        recomputed_ >= 0
            ? cpu::Residual{.weights = &std::get<cpu::Conv3x3Weights>(weights_.front()),
                            .input = &picture}
            : cpu::Residual{.map = &a};
    const auto run = [&](const MutableTensorView& target) {
      const TileGrid grid(RoundUp(target.h, 2), RoundUp(target.w, 2));
      ForTiles(grid, s, [&](size_t, const Tile& tile, float* work) {
        Conv3x3(weights, x, residual, Map{}, &target, tile, nullptr, work);
      });
    };
    if (!tap) {
      run(planes);
      return;
    }
    const auto height = static_cast<int64_t>(s.plan->height);
    const auto width = static_cast<int64_t>(s.plan->width);
    std::vector<float> padded(static_cast<size_t>(height * width * planes.c));
    const auto whole = MutableTensorView::Nchw(padded.data(), 1, planes.c, height, width);
    run(whole);
    for (int64_t c = 0; c < planes.c; ++c) {
      for (int64_t y = 0; y < planes.h; ++y) {
        const float* in = whole.data + c * whole.stride_c + y * whole.stride_h;
        float* out = planes.data + c * planes.stride_c + y * planes.stride_h;
        for (int64_t x = 0; x < planes.w; ++x) out[x * planes.stride_w] = in[x];
      }
    }
    tap(node.name, TensorView::Nchw(padded.data(), 1, planes.c, height, width));
  }

  template <class F>
  void ForTiles(const TileGrid& grid, CpuScratch& s, const F& f) const {
    using Range = tbb::blocked_range<size_t>;
    tbb::parallel_for(
        Range(0, grid.count(), 1),
        [&](const Range& range) {
          float* work = s.work[tbb::this_task_arena::current_thread_index()].data();
          for (size_t i = range.begin(); i < range.end(); ++i) f(i, grid.tile(i), work);
        },
        tbb::simple_partitioner());
  }

  // The tiles' partial sums, always in the same order.
  static void ReduceGram(const Map& y, size_t tiles, CpuScratch& s) {
    const size_t c = y.channels;
    s.gram.assign(c * c, 0.0);
    for (size_t t = 0; t < tiles; ++t) {
      const float* partial = s.partial_grams.data() + t * y.pixel * y.pixel;
      for (size_t i = 0; i < c; ++i) {
        for (size_t j = i; j < c; ++j) s.gram[i * c + j] += partial[i * y.pixel + j];
      }
    }
    for (size_t i = 0; i < c; ++i) {
      for (size_t j = 0; j < i; ++j) s.gram[i * c + j] = s.gram[j * c + i];
    }
  }

  static void FillPicture(const TensorView& image, Padding padding, const Map& picture) {
    cpu::ZeroBorder(picture);
    tbb::parallel_for(ptrdiff_t{0}, picture.height, [&](ptrdiff_t y) {
      for (ptrdiff_t x = 0; x < picture.width; ++x) {
        const bool outside = y >= image.h || x >= image.w;
        float* pixel = picture.at(y, x);
        if (outside && padding == Padding::kZero) {
          std::fill_n(pixel, picture.pixel, 0.0f);
          continue;
        }
        const float* in = image.data + Reflect(y, image.h) * image.stride_h +
                          Reflect(x, image.w) * image.stride_w;
        for (int64_t c = 0; c < image.c; ++c) pixel[c] = in[c * image.stride_c];
      }
    });
  }

  static void HandOver(const Engine::Tap& tap, const Node& node, const Map& y) {
    TensorView view;
    view.data = y.data;
    view.n = 1;
    view.c = static_cast<int64_t>(y.channels);
    view.h = y.height;
    view.w = y.width;
    view.stride_c = 1;
    view.stride_h = static_cast<int64_t>(y.row);
    view.stride_w = static_cast<int64_t>(y.pixel);
    tap(node.tap_name(), view);
  }

  Model model_;
  int threads_;
  tbb::global_control limit_;  // lets the arena have more threads than there are cores
  mutable tbb::task_arena arena_;
  std::vector<Weights> weights_;  // by node
  int recomputed_ = -1;
  size_t picture_pixel_ = 0;
  size_t work_floats_ = 0;
};

}  // namespace

BackendStatus QueryCpu(int) {
  return {.name = "cpu",
          .usable = true,
          .detail = fmt::format("{}, {}, {} cores", CpuName(), cpu::TargetName(),
                                tbb::info::default_concurrency()),
          .remedy = "",
          .precisions = {Precision::kFP32}};
}

std::unique_ptr<Backend> CreateCpuBackend(const Model& model, const Options& options, int) {
  const int threads = options.threads > 0 ? options.threads : tbb::info::default_concurrency();
  return std::make_unique<CpuBackend>(model, threads);
}

}  // namespace mstpp
