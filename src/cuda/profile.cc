// SPDX-License-Identifier: Apache-2.0
// Runner::Profile: every step by itself, on one stream and without a graph.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/node_range.h"
#include "cuda/runner.h"
#include "cuda/views.h"

namespace mstpp::cuda {
namespace {

// Steps that are enqueued at a time: the GPU's queue holds about a thousand commands.
constexpr size_t kQueued = 128;

class TimingEvent {
 public:
  TimingEvent() {
    cudaEvent_t event = nullptr;
    Check(cudaEventCreate(&event), "creating an event");
    event_.reset(event);
  }
  void Record(cudaStream_t stream) const {
    Check(cudaEventRecord(event_.get(), stream), "recording an event");
  }
  double MsSince(const TimingEvent& begin) const {
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin.event_.get(), event_.get()), "timing a kernel");
    return ms;
  }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// Holds a stream until the end of its life, so that what is enqueued meanwhile runs back to back,
// however slow the CPU is at launching.
class Gate {
 public:
  explicit Gate(cudaStream_t stream) : open_(std::make_shared<std::atomic<bool>>(false)) {
    auto seen = std::make_unique<std::shared_ptr<std::atomic<bool>>>(open_);
    const auto wait = [](void* data) {
      const std::unique_ptr<std::shared_ptr<std::atomic<bool>>> open(
          static_cast<std::shared_ptr<std::atomic<bool>>*>(data));
      (*open)->wait(false);
    };
    Check(cudaLaunchHostFunc(stream, wait, seen.get()), "holding a stream");
    seen.release();  // the function's own now
  }
  ~Gate() {
    open_->store(true);
    open_->notify_all();
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

 private:
  std::shared_ptr<std::atomic<bool>> open_;
};

// Milliseconds of each step.
std::vector<double> TimeSteps(const Program& program, cudaStream_t stream) {
  struct Pair {
    TimingEvent begin, end;
  };
  std::vector<Pair> events(program.steps.size());
  NodeRange range;
  for (size_t first = 0; first < program.steps.size(); first += kQueued) {
    const size_t last = std::min(first + kQueued, program.steps.size());
    {
      const Gate gate(stream);
      for (size_t i = first; i < last; ++i) {
        range.Enter(program.steps[i].node);
        events[i].begin.Record(stream);
        program.steps[i].launch(stream);
        events[i].end.Record(stream);
      }
    }
    Check(cudaStreamSynchronize(stream), "running the network");
  }
  std::vector<double> ms;
  for (const Pair& pair : events) ms.push_back(pair.end.MsSince(pair.begin));
  return ms;
}

}  // namespace

std::vector<KernelTime> Runner::Profile(const TensorView& input, const MutableTensorView& output,
                                        Padding padding, int warm_up, int runs) {
  const DeviceScope scope(gpu_.index);
  std::vector<KernelTime> times;
  InGroups(input, [&](const Groups& groups) {
    times.clear();
    for (int64_t first = 0; first < input.n; first += groups.size) {
      const int64_t images = std::min(groups.size, input.n - first);
      ProfileGroup(Images(input, first, images), Images(output, first, images), padding, warm_up,
                   runs, times);
    }
  });
  return times;
}

// Adds a group's times to `times`.
void Runner::ProfileGroup(const TensorView& input, const MutableTensorView& output, Padding padding,
                          int warm_up, int runs, std::vector<KernelTime>& times) {
  std::vector<float> picture(static_cast<size_t>(input.n * input.c * input.h * input.w));
  std::vector<float> cube(static_cast<size_t>(output.n * output.c * output.h * output.w));
  const auto all = [](auto* data, const auto& v) {
    return BasicTensorView<std::remove_pointer_t<decltype(data)>>::Nchw(data, v.n, v.c, v.h, v.w);
  };
  CopyView(input, all(picture.data(), input));
  const DeviceBuffer image(std::span(reinterpret_cast<const unsigned char*>(picture.data()),
                                     picture.size() * sizeof(float)));
  const DeviceBuffer device_cube(cube.size() * sizeof(float));
  const Shape shape = PaddedShape(input.n, input.h, input.w);
  const DeviceBuffer arena(network_.ArenaBytes(shape, /*taps=*/false));
  Lane lane(network_);
  const Program program = network_.Compile(shape, /*taps=*/false, arena.data(), lane.io());
  const float* const pixels = image.as<float>();
  lane.SetIo(MakeIo(all(pixels, input), all(device_cube.as<float>(), output), padding));
  const bool first_group = times.empty();
  // Which time each step adds to: a kernel that is launched once a picture has one.
  std::vector<size_t> index;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    const bool again = i > 0 && step.node == program.steps[i - 1].node &&
                       step.kernel == program.steps[i - 1].kernel;
    index.push_back(i == 0 ? 0 : index.back() + (again ? 0 : 1));
    if (first_group && !again) {
      times.push_back({step.node, step.kernel, std::vector<double>(runs, 0.0)});
    }
  }
  // A kernel is loaded when it is first launched, for which a held stream would wait for ever.
  for (const Step& step : program.steps) step.launch(lane.main());
  lane.Wait();
  for (int run = -warm_up; run < runs; ++run) {
    const std::vector<double> ms = TimeSteps(program, lane.main());
    if (run < 0) continue;
    for (size_t i = 0; i < ms.size(); ++i) times.at(index[i]).ms[static_cast<size_t>(run)] += ms[i];
  }
  Check(cudaMemcpy(cube.data(), device_cube.data(), device_cube.size(), cudaMemcpyDeviceToHost),
        "copying the cube");
  CopyView(all(static_cast<const float*>(cube.data()), output), output);
}

}  // namespace mstpp::cuda
