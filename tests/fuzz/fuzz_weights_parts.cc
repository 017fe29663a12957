// SPDX-License-Identifier: Apache-2.0
// What lies inside zip archives, where checksums keep fuzz_weights out: the first byte says whether
// the rest is the pickle of a PyTorch file, with two storages beside it, or an array of an .npz.
#include <cstdint>
#include <cstdlib>

#include "../weights_builders.h"
#include "weights/format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace testing = mstpp::weights_testing;
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string storage(48, '\x3f');  // floats, doubles and integers are all finite
  const std::string archive =
      data[0] % 2 == 0
          ? testing::MakeZip({{"m/data.pkl", rest}, {"m/data/0", storage}, {"m/data/1", storage}})
          : testing::MakeZip({{data[0] % 4 == 1 ? "w.npy" : "__metadata__.json.npy", rest}});
  try {
    const mstpp::WeightsFile file = mstpp::ReadWeightsFromMemory(
        "file", {reinterpret_cast<const uint8_t*>(archive.data()), archive.size()}, false);
    for (const auto& [name, tensor] : file.tensors) {
      if (tensor.size() != std::ssize(tensor.data)) std::abort();
    }
  } catch (const mstpp::Error&) {  // the only exception that may come out
  }
  return 0;
}
