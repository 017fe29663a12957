// SPDX-License-Identifier: Apache-2.0
// Runs a DeviceNetwork on batches: groups of pictures on two lanes, pictures in and cubes out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cuda/device.h"
#include "cuda/groups.h"
#include "cuda/lane.h"
#include "cuda/program.h"
#include "engine/backend.h"

namespace mstpp::cuda {

// What one Run at a time needs. Grows with the shapes it meets.
class Runner final : public Scratch {
 public:
  // half_cubes: from the GPU to host memory as FP16 (Options::fp16_transfers).
  Runner(const DeviceNetwork& network, const DeviceInfo& gpu, const Config& config,
         bool half_cubes);
  ~Runner() override;

  void Run(const TensorView& input, const MutableTensorView& output, Padding padding);
  void RunWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                   const Engine::Tap& tap);
  std::vector<KernelTime> Profile(const TensorView& input, const MutableTensorView& output,
                                  Padding padding, int warm_up, int runs);

 private:
  // Where a group of pictures is on the GPU while it is there, if the caller's memory is the
  // host's. Two for either lane: while one group is computed the one before it is collected.
  static constexpr int kSlots = 2 * kLanes;
  struct Slot {
    DeviceBuffer image, cube;
    PinnedBuffer host_image, host_cube;
    Event copied_in, computed;
    std::vector<Event> copied_out;  // piece after piece of the cubes
  };

  template <class Element>  // of the cubes that the bus carries: float, or uint16_t for halves
  class HostRun;

  void Clear();
  Lane& LaneAt(int64_t index);
  Shape PaddedShape(int64_t images, int64_t height, int64_t width) const;
  void InGroups(const TensorView& input, const std::function<void(const Groups&)>& run);
  void RunOnDevice(const TensorView& input, const MutableTensorView& output, Padding padding,
                   const Groups& groups);
  void RunFromHost(const TensorView& input, const MutableTensorView& output, Padding padding,
                   const Groups& groups);
  void ProfileGroup(const TensorView& input, const MutableTensorView& output, Padding padding,
                    int warm_up, int runs, std::vector<KernelTime>& times);
  void RunImageWithTaps(const TensorView& input, const MutableTensorView& output, Padding padding,
                        const Engine::Tap& tap);

  const DeviceNetwork& network_;
  DeviceInfo gpu_;
  Config config_;
  bool half_cubes_;
  Stream in_, out_;
  // Made when a batch first needs them.
  std::unique_ptr<Lane> lanes_[kLanes];
  std::unique_ptr<Slot> slots_[kSlots];
};

}  // namespace mstpp::cuda
