// SPDX-License-Identifier: Apache-2.0
// Any bytes are either refused with an Error or give a whole cube. The first ones choose the
// reader: .npy, TIFF, the JSON of the metadata, or ENVI, whose header ends at the first zero byte
// and whose numbers follow it. HDF5 is another library's and is not fuzzed here.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "io/cube_formats.h"
#include "io/envi_header.h"
#include "io/metadata.h"
#include "mstpp/error.h"

namespace {

// A file that exists in memory only; the readers take paths.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("cube", 0)) {}
  std::string Write(std::string_view bytes) const {
    if (::ftruncate(fd_, 0) != 0 ||
        ::pwrite(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      std::abort();
    }
    return "/proc/self/fd/" + std::to_string(fd_);
  }

 private:
  int fd_;
};

void Check(bool holds) {
  if (!holds) std::abort();
}

mstpp::Cube Read(std::string_view bytes) {
  static const MemoryFile file, header;
  if (bytes.starts_with("ENVI")) {
    const size_t end = std::min(bytes.find('\0'), bytes.size());
    const std::string_view numbers = bytes.substr(std::min(end + 1, bytes.size()));
    return mstpp::ReadEnvi(file.Write(numbers), header.Write(bytes.substr(0, end)));
  }
  if (bytes.starts_with("\x93")) return mstpp::ReadNpyCube(file.Write(bytes));
  if (bytes.starts_with("II") || bytes.starts_with("MM")) {
    return mstpp::ReadTiffCube(file.Write(bytes));
  }
  mstpp::Cube cube{.width = 1, .height = 1, .bands = 2, .data = {0, 0}};
  mstpp::MetadataFromText(bytes, "text", &cube);
  return cube;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mstpp::Cube cube;
  try {
    cube = Read({reinterpret_cast<const char*>(data), size});
  } catch (const mstpp::Error&) {
    return 0;
  }
  Check(cube.bands > 0 && cube.height > 0 && cube.width > 0);
  Check(cube.data.size() == static_cast<size_t>(cube.bands * cube.pixels()));
  Check(cube.wavelengths_nm.empty() ||
        cube.wavelengths_nm.size() == static_cast<size_t>(cube.bands));
  // What was read can be written and read again.
  const mstpp::EnviHeader again = mstpp::ParseEnviHeader("again", mstpp::FormatEnviHeader(cube));
  Check(again.samples == cube.width && again.lines == cube.height && again.bands == cube.bands);
  Check(again.wavelengths_nm == cube.wavelengths_nm);
  Check(mstpp::ProvenanceToJson(again.provenance) == mstpp::ProvenanceToJson(cube.provenance));
  return 0;
}
