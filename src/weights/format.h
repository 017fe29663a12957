// SPDX-License-Identifier: Apache-2.0
// What the readers of weights share: a file in memory, the table of formats, texts for messages.
#pragma once

#include <new>
#include <string>
#include <string_view>

#include "core/byte_reader.h"
#include "mstpp/error.h"
#include "weights/weights.h"

namespace mstpp {

struct Source {
  std::string path;  // for messages only
  Bytes bytes;       // the whole file
  bool allow_nonfinite = false;
};

// One row a format. `read` fills tensors and metadata; both may throw Error.
struct Format {
  const char* name;
  bool (*detect)(const Source& source);
  void (*read)(const Source& source, WeightsFile* file);
};

bool DetectPth(const Source& source);
void ReadPth(const Source& source, WeightsFile* file);
bool DetectNpz(const Source& source);
void ReadNpz(const Source& source, WeightsFile* file);
bool DetectSafetensors(const Source& source);
void ReadSafetensors(const Source& source, WeightsFile* file);
bool DetectOnnx(const Source& source);
void ReadOnnx(const Source& source, WeightsFile* file);

// ReadWeights on a file that is in memory already; `path` is for messages.
WeightsFile ReadWeightsFromMemory(const std::string& path, Bytes bytes, bool allow_nonfinite);

// What `work` returns; a std::bad_alloc becomes the Error kOutOfMemory.
template <typename Work>
auto OrOutOfMemory(const std::string& path, const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, path, "not enough memory for the weights");
  }
}

// Text from a file, fit for a message: in quotes, at most 80 characters, whatever is not printable
// ASCII escaped.
std::string Quoted(std::string_view text);

// Where in the file: "w.npz: conv_in.weight.npy".
std::string Where(const std::string& path, std::string_view part);

}  // namespace mstpp
