// SPDX-License-Identifier: Apache-2.0
// Times the CUDA backend on the device: pictures and cubes in device memory, batches in groups on
// lanes as the backend runs them, CUDA events, the median of 200 runs after 50. With --kernels also
// every kernel by itself; with --energy what four seconds of runs take of it, and the clock.
//
//   cuda_bench [--size HxW] [--batches 1,16] [--precisions fp16,...] [--portable]
//     [--kernels] [--energy]
//     [--group PICTURES] [--lanes N]  instead of the backend's
//     [--warm-up N] [--runs N] [--seconds S]  fewer runs if a measurement takes longer than that
//     [--json FILE]
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/groups.h"
#include "cuda/kernels/network_io.h"
#include "cuda/lane.h"
#include "cuda/program.h"
#include "cuda/views.h"
#include "model/network.h"
#include "model/padding.h"
#include "mstpp/error.h"
#include "power_meter.h"

namespace mstpp::cuda {
namespace {

struct Arguments {
  int height = 482, width = 512, index = 0;
  std::vector<int> batches = {1};
  std::vector<Precision> precisions = {Precision::kFP16};
  int group = 0, lanes = 0;  // 0: the backend's
  int warm_up = 50, runs = 200;
  double seconds = 10;
  std::string json;
  bool kernels = false, energy = false, portable = false;
};

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> items;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    items.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return items;
}

Arguments Parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto next = [&]() -> std::string {
      if (i + 1 == argc) throw Error(ErrorCode::kInvalidArgument, flag, "needs a value");
      return argv[++i];
    };
    if (flag == "--size") {
      const std::string size = next();
      a.height = std::stoi(size);
      a.width = std::stoi(size.substr(size.find('x') + 1));
    } else if (flag == "--batches") {
      a.batches.clear();
      for (const std::string& b : Split(next())) a.batches.push_back(std::stoi(b));
    } else if (flag == "--precisions") {
      a.precisions.clear();
      for (const std::string& p : Split(next())) a.precisions.push_back(ParsePrecision(p));
    } else if (flag == "--group") {
      a.group = std::max(1, std::stoi(next()));
    } else if (flag == "--lanes") {
      a.lanes = std::max(1, std::stoi(next()));
    } else if (flag == "--warm-up") {
      a.warm_up = std::stoi(next());
    } else if (flag == "--runs") {
      a.runs = std::max(1, std::stoi(next()));
    } else if (flag == "--seconds") {
      a.seconds = std::stod(next());
    } else if (flag == "--json") {
      a.json = next();
    } else if (flag == "--kernels") {
      a.kernels = true;
    } else if (flag == "--energy") {
      a.energy = true;
    } else if (flag == "--portable") {
      a.portable = true;
    } else {
      throw Error(ErrorCode::kInvalidArgument, flag, "unknown flag");
    }
  }
  return a;
}

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Timer {
 public:
  Timer() {
    Check(cudaEventCreate(&begin_), "creating an event");
    Check(cudaEventCreate(&end_), "creating an event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  // Milliseconds: median, least, 95th percentile; and how many runs there were.
  struct Result {
    double median, least, p95;
    int warm_up, runs;
  };
  // Fewer runs than asked for, but seven, once `seconds` are over; a fifth of them for warming up.
  template <class Work>
  Result Measure(cudaStream_t stream, int warm_up, int runs, double seconds, const Work& work) {
    const auto begin = Clock::now();
    int warm = 0;
    while (warm < warm_up && (warm < 2 || SecondsSince(begin) < seconds / 5)) {
      Once(stream, work);
      ++warm;
    }
    std::vector<double> times;
    while (static_cast<int>(times.size()) < runs &&
           (times.size() < 7 || SecondsSince(begin) < seconds)) {
      times.push_back(Once(stream, work));
    }
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.front(), times[times.size() * 95 / 100], warm,
            static_cast<int>(times.size())};
  }

 private:
  template <class Work>
  double Once(cudaStream_t stream, const Work& work) {
    Check(cudaEventRecord(begin_, stream), "recording");
    work();
    Check(cudaEventRecord(end_, stream), "recording");
    Check(cudaEventSynchronize(end_), "running");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin_, end_), "timing");
    return ms;
  }

  cudaEvent_t begin_, end_;
};

void TimeKernels(const Program& program, cudaStream_t main, cudaStream_t aside) {
  constexpr int kRepeats = 20;
  Timer timer;
  struct Sum {
    double us = 0;
    int count = 0;
  };
  std::map<std::string, Sum> by_kernel;
  double total = 0;
  for (const Step& step : program.steps) {
    Program repeated;
    for (int i = 0; i < kRepeats; ++i)
      repeated.steps.push_back({step.node, step.kernel, step.launch});
    const Graph graph(repeated, main, aside);
    const double us =
        timer.Measure(main, 2, 9, 10, [&] { graph.Launch(main); }).median * 1000 / kRepeats;
    fmt::print("  {:<44} {:<18} {:8.2f} us\n", step.node, step.kernel, us);
    Sum& sum = by_kernel[step.kernel];
    sum.us += us;
    ++sum.count;
    if (!step.aside) total += us;
  }
  for (const auto& [kernel, sum] : by_kernel) {
    fmt::print("  {:<18} {:3} x {:8.2f} = {:9.2f} us\n", kernel, sum.count, sum.us / sum.count,
               sum.us);
  }
  fmt::print("  sum of the main stream's kernels {:.1f} us\n", total);
}

size_t FreeMemory() {
  size_t free = 0, total = 0;
  Check(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
  return free;
}

// What one launch of a lane takes.
struct Group {
  Shape shape;
  NetworkIo io;
};
std::vector<Group> Cut(const TensorView& input, const MutableTensorView& output, int64_t size,
                       const Shape& padded) {
  std::vector<Group> groups;
  for (int64_t first = 0; first < input.n; first += size) {
    const int64_t images = std::min(size, input.n - first);
    groups.push_back(
        {{static_cast<int>(images), padded.height, padded.width},
         MakeIo(Images(input, first, images), Images(output, first, images), Padding::kReflect)});
  }
  return groups;
}

// Launches the groups on the lanes in turn, all of them behind the first lane's main stream.
void Launch(const std::vector<Group>& groups, const std::vector<std::unique_ptr<Lane>>& lanes,
            const Event& event) {
  const auto order = [&](const Lane& before, const Lane& after) {
    Check(cudaEventRecord(event.get(), before.main()), "recording");
    Check(cudaStreamWaitEvent(after.main(), event.get()), "waiting");
  };
  for (size_t i = 1; i < lanes.size(); ++i) order(*lanes[0], *lanes[i]);
  for (size_t k = 0; k < groups.size(); ++k) {
    lanes[k % lanes.size()]->Launch(groups[k].shape, groups[k].io);
  }
  for (size_t i = 1; i < lanes.size(); ++i) order(*lanes[i], *lanes[0]);
}

struct Energy {
  double millijoules, watts, megahertz;  // of a run; while they run
};
template <class Work>
Energy MeasureEnergy(const PowerMeter& meter, cudaStream_t stream, const Work& work) {
  constexpr double kSeconds = 4;
  const auto run_for = [&](double seconds, std::vector<unsigned>& clocks) {
    const auto begin = Clock::now();
    while (SecondsSince(begin) < seconds) {
      work();
      work();
      clocks.push_back(meter.Megahertz());
      Check(cudaStreamSynchronize(stream), "running");
    }
  };
  std::vector<unsigned> clocks;
  run_for(kSeconds / 8, clocks);  // until the clock is what the power allows
  clocks.clear();
  const uint64_t before = meter.Millijoules();
  const auto begin = Clock::now();
  run_for(kSeconds, clocks);
  const double seconds = SecondsSince(begin);
  const auto millijoules = static_cast<double>(meter.Millijoules() - before);
  const auto count = static_cast<double>(clocks.size());
  return {millijoules / (2 * count), millijoules / 1000 / seconds,
          std::accumulate(clocks.begin(), clocks.end(), 0.0) / count};
}

// One record a batch is added to `results`.
void Bench(const Arguments& a, const Model& model, Precision precision, const DeviceInfo& gpu,
           nlohmann::ordered_json& results) {
  const size_t free = FreeMemory();
  auto network = a.portable ? nullptr : MakeFusedNetwork(model.network(), precision, gpu);
  const bool fused = network != nullptr;
  if (!fused) network = MakePortableNetwork(model.network(), precision, gpu);
  const int multiple = model.config().padding_multiple();
  const int in = model.config().in_channels, bands = model.config().bands;
  for (int batch : a.batches) {
    const Shape padded{batch, static_cast<int>(RoundUp(a.height, multiple)),
                       static_cast<int>(RoundUp(a.width, multiple))};
    Groups chosen = ChooseGroups(batch, int64_t{padded.height} * padded.width);
    if (a.group > 0) chosen.size = std::min(a.group, batch);
    if (a.lanes > 0) chosen.lanes = a.lanes;
    const size_t pixels = static_cast<size_t>(batch) * a.height * a.width;
    std::vector<float> pictures(pixels * in);
    for (size_t i = 0; i < pictures.size(); ++i) {
      pictures[i] = static_cast<float>((i * 2654435761u) % 1024) / 1024.0f;
    }
    const DeviceBuffer image(std::span(reinterpret_cast<const unsigned char*>(pictures.data()),
                                       pictures.size() * sizeof(float)));
    const DeviceBuffer cube(pixels * bands * sizeof(float));
    const std::vector<Group> groups =
        Cut(TensorView::Nchw(image.as<float>(), batch, in, a.height, a.width),
            MutableTensorView::Nchw(cube.as<float>(), batch, bands, a.height, a.width), chosen.size,
            padded);
    // Gone before the pictures and cubes, for a lane waits for its work.
    std::vector<std::unique_ptr<Lane>> lanes(
        std::min(groups.size(), static_cast<size_t>(chosen.lanes)));
    for (auto& lane : lanes) lane = std::make_unique<Lane>(*network);
    Lane& lane = *lanes.front();
    const Event event;
    Timer timer;
    const Timer::Result r = timer.Measure(lane.main(), a.warm_up, a.runs, a.seconds,
                                          [&] { Launch(groups, lanes, event); });
    // Weights, code, arenas and graphs; not the pictures and cubes, which are the caller's.
    const int64_t used = static_cast<int64_t>(free) - static_cast<int64_t>(FreeMemory()) -
                         static_cast<int64_t>(image.size() + cube.size());
    size_t arena_bytes = 0, kernels = 0;
    for (const auto& each : lanes) arena_bytes += each->arena().size();
    const auto compile = [&](const Shape& of) {
      return network->Compile(of, /*taps=*/false, lane.arena().data(), lane.io());
    };
    for (const Group& group : groups) kernels += compile(group.shape).steps.size();
    fmt::print(
        "{} {} batch {} in groups of {}, lanes {}: median {:.4f} ms ({:.4f} an image), least "
        "{:.4f}, p95 {:.4f} of {}; {} kernels, arenas {:.0f} MB, in all {:.0f} MB\n",
        ToString(precision), fused ? "fused" : "portable", batch, chosen.size, lanes.size(),
        r.median, r.median / batch, r.least, r.p95, r.runs, kernels,
        static_cast<double>(arena_bytes) / 1e6, static_cast<double>(used) / 1e6);
    results.push_back({{"precision", ToString(precision)},
                       {"kernels", fused ? "fused" : "portable"},
                       {"batch", batch},
                       {"group", chosen.size},
                       {"lanes", lanes.size()},
                       {"warmUp", r.warm_up},
                       {"runs", r.runs},
                       {"medianMs", r.median},
                       {"minMs", r.least},
                       {"p95Ms", r.p95},
                       {"launches", kernels},
                       {"arenaBytes", arena_bytes},
                       {"memoryBytes", used}});
    if (a.energy) {
      static const PowerMeter meter(a.index);
      const Energy e = MeasureEnergy(meter, lane.main(), [&] { Launch(groups, lanes, event); });
      fmt::print("  {:.0f} mJ an image, {:.0f} W, {:.0f} MHz\n", e.millijoules / batch, e.watts,
                 e.megahertz);
      results.back()["energyJ"] = e.millijoules / 1000;
      results.back()["powerW"] = e.watts;
      results.back()["clockMhz"] = e.megahertz;
    }
    if (a.kernels) {
      lane.SetIo(groups.front().io);
      TimeKernels(compile(groups.front().shape), lane.main(), lane.aside());
    }
    std::fflush(stdout);
  }
}

int Run(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  const auto begin = Clock::now();
  const Model model = Model::Random({}, 1);
  const DeviceInfo gpu = QueryDevice(arguments.index);
  const DeviceScope scope(arguments.index);
  fmt::print("{}, {} x {}\n", gpu.name, arguments.height, arguments.width);
  nlohmann::ordered_json json = {{"gpu", gpu.name},
                                 {"height", arguments.height},
                                 {"width", arguments.width},
                                 {"results", nlohmann::ordered_json::array()}};
  for (Precision precision : arguments.precisions) {
    Bench(arguments, model, precision, gpu, json["results"]);
  }
  fmt::print("all of it {:.2f} s\n", SecondsSince(begin));
  if (!arguments.json.empty() && !(std::ofstream(arguments.json) << json.dump(1) << std::endl)) {
    throw Error(ErrorCode::kIo, arguments.json, "cannot write");
  }
  return 0;
}

}  // namespace
}  // namespace mstpp::cuda

int main(int argc, char** argv) {
  try {
    return mstpp::cuda::Run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
