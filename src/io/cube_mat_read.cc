// SPDX-License-Identifier: Apache-2.0
// Reads MAT-files of version 7.3: mstpp's own, and those of ARAD-1K and of the published MST++
// code, which hold `cube` and perhaps `bands`.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/cube_formats.h"
#include "io/cube_mat.h"
#include "io/hdf5.h"
#include "io/input_file.h"
#include "io/metadata.h"

namespace mstpp {
namespace {

constexpr hsize_t kMaxMetadata = 1 << 24;  // characters

// Follows no link into another file.
herr_t RefuseLink(const char*, const char*, const char*, const char*, unsigned*, hid_t, void*) {
  return -1;
}

class MatReader {
 public:
  explicit MatReader(const std::string& path)
      : path_(path), file_bytes_(InputFile(path).size()), file_(Open(path)) {}

  Cube Read() {
    Cube cube;
    {
      const std::optional<Dataset> found = Find(kMatCube);
      if (!found) {
        throw Error(ErrorCode::kUnsupported, path_,
                    "no array 'cube' in it, but " + Names() + "; save the cube by that name");
      }
      ReadNumbers(*found, &cube);
    }
    ReadMetadata(&cube);
    if (cube.wavelengths_nm.empty()) ReadBands(&cube);
    return cube;
  }

 private:
  struct Dataset {
    Hdf5Handle id, space, type, properties;
    std::vector<hsize_t> shape;
    std::vector<hsize_t> chunk;  // what is stored, and unpacked, as one piece; 1s if all is
    hsize_t elements = 1;
    bool number = false;  // floating-point or integer
  };

  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, path_, what);
  }

  Hdf5Handle Made(hid_t id, Hdf5Handle::CloseFunction close) const {
    return {id, close, ErrorCode::kCorrupt, path_, "cannot be read"};
  }

  void Check(herr_t result) const {
    if (result < 0) throw Hdf5Error(ErrorCode::kCorrupt, path_, "cannot be read");
  }

  Hdf5Handle Open(const std::string& path) const {
    const Hdf5Handle access = Made(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    // Reading needs no lock, and some network file systems have none.
    Check(H5Pset_file_locking(access, /*use_file_locking=*/false, /*ignore_when_disabled=*/true));
    return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose, ErrorCode::kCorrupt, path,
            "cannot be read"};
  }

  // What the file holds at its root, for messages.
  std::string Names() const {
    H5G_info_t info = {};
    Check(H5Gget_info(file_, &info));
    std::string names;
    for (hsize_t i = 0; i < std::min<hsize_t>(info.nlinks, 8); ++i) {
      std::array<char, 64> name{};
      if (H5Lget_name_by_idx(file_, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size(),
                             H5P_DEFAULT) < 0) {
        break;
      }
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", name.data());
    }
    return names.empty() ? "nothing" : names;
  }

  // Opens a dataset whose numbers are all in this file. Nothing if there is none of this name.
  std::optional<Dataset> Find(const char* name) const {
    const htri_t exists = H5Lexists(file_, name, H5P_DEFAULT);
    Check(exists);
    if (exists == 0) return std::nullopt;
    const Hdf5Handle access = Made(H5Pcreate(H5P_LINK_ACCESS), H5Pclose);
    Check(H5Pset_elink_cb(access, RefuseLink, nullptr));
    Hdf5Handle id = Made(H5Oopen(file_, name, access), H5Oclose);
    if (H5Iget_type(id) != H5I_DATASET) return std::nullopt;
    Hdf5Handle space = Made(H5Dget_space(id), H5Sclose);
    Hdf5Handle type = Made(H5Dget_type(id), H5Tclose);
    Hdf5Handle properties = Made(H5Dget_create_plist(id), H5Pclose);
    Dataset dataset{std::move(id), std::move(space), std::move(type), std::move(properties)};
    const int rank = H5Sget_simple_extent_ndims(dataset.space);
    Check(rank);
    dataset.shape.resize(static_cast<size_t>(rank));
    Check(H5Sget_simple_extent_dims(dataset.space, dataset.shape.data(), nullptr));
    const H5T_class_t type_class = H5Tget_class(dataset.type);
    dataset.number = type_class == H5T_FLOAT || type_class == H5T_INTEGER;
    CheckStorage(name, &dataset);
    return dataset;
  }

  // Refuses a shape that the bytes of the file cannot fill, before anything is allocated for it.
  void CheckStorage(const char* name, Dataset* dataset) const {
    constexpr hsize_t kMaxElements = hsize_t{1} << 56;
    for (const hsize_t side : dataset->shape) {
      if (side == 0 || side > kMaxElements / dataset->elements) {
        Corrupt(fmt::format("the variable '{}' has a shape that cannot be", name));
      }
      dataset->elements *= side;
    }
    if (H5Pget_layout(dataset->properties) == H5D_VIRTUAL ||
        H5Pget_external_count(dataset->properties) != 0) {
      throw Error(ErrorCode::kUnsupported, path_,
                  fmt::format("the numbers of '{}' lie in other files", name));
    }
    const int filters = H5Pget_nfilters(dataset->properties);
    Check(filters);
    // Deflate, the strongest of HDF5's own filters, packs at most 1032 to 1.
    const hsize_t ratio = filters == 0 ? 1 : 1032;
    const hsize_t bytes = dataset->elements * H5Tget_size(dataset->type);
    const hsize_t stored = H5Dget_storage_size(dataset->id);
    if (stored > file_bytes_ || bytes / ratio > stored) {
      Corrupt(fmt::format("the variable '{}' takes {} bytes; the file of {} bytes holds {} of it",
                          name, bytes, file_bytes_, stored));
    }
    dataset->chunk = ChunkShape(name, *dataset, bytes);
  }

  // A chunk is unpacked in memory as a whole: its size too must fit the dataset's.
  std::vector<hsize_t> ChunkShape(const char* name, const Dataset& dataset, hsize_t bytes) const {
    constexpr hsize_t kSlack = 1 << 24;
    std::vector<hsize_t> chunk(dataset.shape.size(), 1);
    if (H5Pget_layout(dataset.properties) != H5D_CHUNKED) return chunk;
    Check(H5Pget_chunk(dataset.properties, static_cast<int>(chunk.size()), chunk.data()));
    hsize_t left = (bytes + kSlack) / H5Tget_size(dataset.type);
    for (size_t i = 0; i < chunk.size(); ++i) {
      left /= std::max<hsize_t>(chunk[i], 1);
      chunk[i] = std::clamp<hsize_t>(chunk[i], 1, dataset.shape[i]);
    }
    if (left == 0) {
      throw Error(ErrorCode::kUnsupported, path_,
                  fmt::format("the chunks of '{}' are larger than the whole", name));
    }
    return chunk;
  }

  void ReadNumbers(const Dataset& dataset, Cube* cube) const {
    const size_t rank = dataset.shape.size();
    if (!dataset.number || rank < 2 || rank > 3) {
      throw Error(ErrorCode::kUnsupported, path_,
                  fmt::format("'cube' is {} of {} dimensions; it must be a real array of height x "
                              "width x bands",
                              dataset.number ? "an array" : "no array of real numbers, but", rank));
    }
    // MATLAB drops the last dimension if there is one band only.
    const size_t missing = 3 - rank;
    std::array<hsize_t, 3> shape{1, 1, 1}, chunk{1, 1, 1};
    std::copy_n(dataset.shape.begin(), rank, shape.begin() + missing);
    std::copy_n(dataset.chunk.begin(), rank, chunk.begin() + missing);
    const auto [bands, width, height] = shape;
    Allocate(path_, static_cast<int64_t>(bands), static_cast<int64_t>(height),
             static_cast<int64_t>(width), cube);

    // Pieces of whole chunks, so that each chunk is unpacked once.
    const hsize_t several = static_cast<hsize_t>(kMatPiece) / (chunk[0] * chunk[1] * height);
    const hsize_t columns = std::min(width, chunk[1] * std::max<hsize_t>(several, 1));
    std::vector<float> piece(chunk[0] * columns * height);
    for (hsize_t band = 0; band < bands; band += chunk[0]) {
      for (hsize_t first = 0; first < width; first += columns) {
        const hsize_t start[] = {band, first, 0};
        const hsize_t count[] = {std::min(chunk[0], bands - band), std::min(columns, width - first),
                                 height};
        Check(H5Sselect_hyperslab(dataset.space, H5S_SELECT_SET, start + missing, nullptr,
                                  count + missing, nullptr));
        const hsize_t total = count[0] * count[1] * count[2];
        const Hdf5Handle memory = Made(H5Screate_simple(1, &total, nullptr), H5Sclose);
        Check(H5Dread(dataset.id, H5T_NATIVE_FLOAT, memory, dataset.space, H5P_DEFAULT,
                      piece.data()));
        for (hsize_t i = 0; i < count[0]; ++i) {
          Transpose(piece.data() + i * count[1] * height, cube->height,
                    static_cast<int64_t>(count[1]), cube->height,
                    cube->data.data() + (band + i) * width * height + first, cube->width);
        }
      }
    }
  }

  void ReadMetadata(Cube* cube) const {
    const std::optional<Dataset> found = Find(kMatMetadata);
    if (!found || H5Tget_class(found->type) != H5T_INTEGER || H5Tget_size(found->type) != 2 ||
        found->elements > kMaxMetadata) {
      return;  // another program's variable
    }
    std::vector<uint16_t> characters(found->elements);
    Check(H5Dread(found->id, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, characters.data()));
    std::string text;
    for (const uint16_t character : characters) {
      if (character > 127) return;  // mstpp's is ASCII
      text.push_back(static_cast<char>(character));
    }
    MetadataFromForeignText(text, path_, cube);
  }

  // Another program's `bands`, if it can be wavelengths in nm: not, say, the bands' numbers.
  void ReadBands(Cube* cube) const {
    constexpr double kLeastNm = 100;
    const std::optional<Dataset> found = Find(kMatBands);
    if (!found || !found->number || found->elements != static_cast<hsize_t>(cube->bands)) return;
    std::vector<double> values(found->elements);
    Check(H5Dread(found->id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
    if (std::all_of(values.begin(), values.end(),
                    [](double nm) { return nm >= kLeastNm && std::isfinite(nm); })) {
      cube->wavelengths_nm = std::move(values);
    }
  }

  const std::string& path_;
  hsize_t file_bytes_;
  Hdf5Handle file_;
};

}  // namespace

Cube ReadMat(const std::string& path) {
  const Hdf5Session session;
  return MatReader(path).Read();
}

}  // namespace mstpp
