// SPDX-License-Identifier: Apache-2.0
// How a batch is cut into what the GPU takes at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace mstpp::cuda {

// Groups that run at the same time: the kernels of one fill the gaps that the other's leave.
constexpr int kLanes = 2;
// Of a group. More hide launches and the ends of kernels, but their feature maps take memory. Of
// tiny pictures it is not the pixels that take it, but what each picture has one of.
constexpr int64_t kGroupPixels = 1 << 21;
constexpr int64_t kGroupPictures = 64;

// Pictures k * size to (k + 1) * size of a batch are group k, which runs on lane k % lanes. Results
// depend on neither.
struct Groups {
  int64_t size = 1;
  int lanes = 1;

  // Less memory, if there is less: smaller groups, in the end a picture at a time.
  bool Shrink();
};

// For pictures of so many pixels, padded.
Groups ChooseGroups(int64_t pictures, int64_t pixels);

// How many pictures each group has of those that are copied to the GPU and back: a quarter as many,
// of small groups half, for then there are more groups, of which some are copied while others are
// computed. The last ones, when little is left to compute, half as many again.
std::vector<int64_t> CopiedGroups(int64_t pictures, const Groups& groups);

// Calls `run`; as long as memory is exhausted, calls it again: first with the same groups, for
// `clear` gives back what earlier batches have left, then with smaller ones. `clear` comes after
// every failure, whatever it is.
void RunInGroups(Groups groups, const std::function<void(const Groups&)>& run,
                 const std::function<void()>& clear);

}  // namespace mstpp::cuda
