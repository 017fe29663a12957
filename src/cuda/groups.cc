// SPDX-License-Identifier: Apache-2.0
#include "cuda/groups.h"

#include <algorithm>

#include "mstpp/error.h"

namespace mstpp::cuda {

bool Groups::Shrink() {
  if (size > 1) {
    size /= 2;
  } else if (lanes > 1) {
    lanes = 1;
  } else {
    return false;
  }
  return true;
}

Groups ChooseGroups(int64_t pictures, int64_t pixels) {
  // Half of the batch, so that both lanes have work.
  const int64_t most = std::min(kGroupPictures, (pictures + 1) / 2);
  return {.size = std::max<int64_t>(1, std::min(kGroupPixels / pixels, most)),
          .lanes = static_cast<int>(std::min<int64_t>(kLanes, pictures))};
}

std::vector<int64_t> CopiedGroups(int64_t pictures, const Groups& groups) {
  const int64_t half_of_small = (std::min<int64_t>(groups.size, 4) + 1) / 2;
  const int64_t most = std::max(half_of_small, (groups.size + 3) / 4), least = (most + 1) / 2;
  std::vector<int64_t> sizes;
  while (pictures > 0) {
    const int64_t size = pictures > groups.lanes * most ? most : least;
    sizes.push_back(std::min(size, pictures));
    pictures -= sizes.back();
  }
  return sizes;
}

void RunInGroups(Groups groups, const std::function<void(const Groups&)>& run,
                 const std::function<void()>& clear) {
  for (bool cleared = false;; cleared = true) {
    try {
      return run(groups);
    } catch (const Error& error) {
      clear();
      if (error.code() != ErrorCode::kOutOfMemory) throw;
      if (cleared && !groups.Shrink()) throw;
    } catch (...) {
      clear();
      throw;
    }
  }
}

}  // namespace mstpp::cuda
