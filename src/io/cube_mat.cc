// SPDX-License-Identifier: Apache-2.0
// Writes MAT-files of version 7.3; cube_mat_read.cc reads them.
#include "io/cube_mat.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/os_error.h"
#include "io/cube_formats.h"
#include "io/hdf5.h"
#include "io/metadata.h"

namespace mstpp {
namespace {

constexpr size_t kUserBlock = 512;

// 116 characters of text, 8 bytes unused, the version and the mark of the byte order. No date: the
// same cube makes the same file.
std::array<char, kUserBlock> UserBlock() {
  constexpr char kText[] =
      "MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by: mstpp HDF5 schema 1.00 .";
  std::array<char, kUserBlock> block{};
  std::fill_n(block.begin(), 116, ' ');
  std::copy_n(kText, sizeof(kText) - 1, block.begin());
  constexpr char kVersion[] = {0x00, 0x02, 'I', 'M'};
  std::copy_n(kVersion, 4, block.begin() + 124);
  return block;
}

class MatWriter {
 public:
  MatWriter(const std::string& path, const Hdf5Sink& sink)
      : path_(path), sink_(sink), file_(Create(path, sink)) {}

  // `shape` as HDF5 sees it, `type` in the file, `matlab_class` what MATLAB makes of it.
  Hdf5Handle AddDataset(const char* name, const std::vector<hsize_t>& shape, hid_t type,
                        const char* matlab_class) {
    const Hdf5Handle space = Space(shape);
    const Hdf5Handle properties = Made(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    Check(H5Pset_obj_track_times(properties, false));  // the same cube, the same bytes
    Check(H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER));
    Hdf5Handle dataset =
        Made(H5Dcreate2(file_, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
    const Hdf5Handle text = Made(H5Tcopy(H5T_C_S1), H5Tclose);
    Check(H5Tset_size(text, std::strlen(matlab_class)));
    AddAttribute(dataset, "MATLAB_class", text, text, matlab_class);
    return dataset;
  }

  void AddAttribute(hid_t dataset, const char* name, hid_t file_type, hid_t type,
                    const void* value) {
    const Hdf5Handle space = Made(H5Screate(H5S_SCALAR), H5Sclose);
    const Hdf5Handle attribute =
        Made(H5Acreate2(dataset, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    Check(H5Awrite(attribute, type, value));
  }

  void Write(hid_t dataset, hid_t type, hid_t memory, hid_t selection, const void* data) {
    Check(H5Dwrite(dataset, type, memory, selection, H5P_DEFAULT, data));
  }

  Hdf5Handle Space(const std::vector<hsize_t>& shape) {
    return Made(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  }

  // Throws if HDF5 or the operating system refused.
  void Check(herr_t result) const {
    if (sink_.error() != 0) throw OsError(path_, "cannot write", sink_.error());
    if (result < 0) throw Hdf5Error(ErrorCode::kIo, path_, "cannot write");
  }

  void Close() { Check(file_.Close() ? 0 : -1); }

 private:
  static Hdf5Handle Create(const std::string& path, const Hdf5Sink& sink) {
    const Hdf5Handle properties(H5Pcreate(H5P_FILE_CREATE), H5Pclose, ErrorCode::kInternal, path,
                                "cannot write");
    if (H5Pset_userblock(properties, kUserBlock) < 0) {
      throw Hdf5Error(ErrorCode::kInternal, path, "cannot write");
    }
    return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties, sink.access()), H5Fclose,
            ErrorCode::kIo, path, "cannot write"};
  }

  Hdf5Handle Made(hid_t id, Hdf5Handle::CloseFunction close) const {
    return {id, close, ErrorCode::kIo, path_, "cannot write"};
  }

  const std::string& path_;
  const Hdf5Sink& sink_;
  Hdf5Handle file_;
};

// Band by band, some columns of the picture at a time: they are transposed into a small buffer and
// are contiguous in the file.
void WriteNumbers(const Cube& cube, MatWriter* writer) {
  const auto bands = static_cast<hsize_t>(cube.bands);
  const auto height = static_cast<hsize_t>(cube.height);
  const auto width = static_cast<hsize_t>(cube.width);
  const Hdf5Handle dataset =
      writer->AddDataset(kMatCube, {bands, width, height}, H5T_IEEE_F32LE, "single");
  const Hdf5Handle selection = writer->Space({bands, width, height});
  const hsize_t columns = std::clamp<hsize_t>(kMatPiece / height, 1, width);
  std::vector<float> piece(columns * height);
  for (hsize_t band = 0; band < bands; ++band) {
    const float* const plane = cube.data.data() + band * width * height;
    for (hsize_t first = 0; first < width; first += columns) {
      const hsize_t now = std::min(columns, width - first);
      Transpose(plane + first, cube.width, cube.height, static_cast<int64_t>(now), piece.data(),
                cube.height);
      const hsize_t start[] = {band, first, 0}, count[] = {1, now, height};
      writer->Check(H5Sselect_hyperslab(selection, H5S_SELECT_SET, start, nullptr, count, nullptr));
      const Hdf5Handle memory = writer->Space({now * height});
      writer->Write(dataset, H5T_NATIVE_FLOAT, memory, selection, piece.data());
    }
  }
}

void WriteWavelengths(const Cube& cube, MatWriter* writer) {
  if (cube.wavelengths_nm.empty()) return;
  const Hdf5Handle dataset = writer->AddDataset(kMatBands, {static_cast<hsize_t>(cube.bands), 1},
                                                H5T_IEEE_F64LE, "double");
  writer->Write(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, cube.wavelengths_nm.data());
}

void WriteMetadata(const Cube& cube, MatWriter* writer) {
  const std::string text = MetadataToText(cube, -1);
  const std::vector<uint16_t> characters(text.begin(), text.end());  // ASCII
  const Hdf5Handle dataset =
      writer->AddDataset(kMatMetadata, {characters.size(), 1}, H5T_STD_U16LE, "char");
  const int32_t decode = 2;  // MATLAB: these integers are UTF-16 characters
  writer->AddAttribute(dataset, "MATLAB_int_decode", H5T_STD_I32LE, H5T_NATIVE_INT32, &decode);
  writer->Write(dataset, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, characters.data());
}

}  // namespace

void WriteMat(const std::string& path, const Cube& cube) {
  AtomicFile file(path);
  const std::array<char, kUserBlock> block = UserBlock();
  file.Write(block.data(), block.size());
  {
    const Hdf5Session session;
    const Hdf5Sink sink(file.fd());
    MatWriter writer(path, sink);
    WriteNumbers(cube, &writer);
    WriteWavelengths(cube, &writer);
    WriteMetadata(cube, &writer);
    writer.Close();
  }
  file.Commit();
}

}  // namespace mstpp
