// SPDX-License-Identifier: Apache-2.0
// NumPy's .npz: a zip archive with one NAME.npy a tensor, stored or deflated. Metadata, if any,
// lies in an array of bytes named __metadata__.json: a JSON object of texts.
#include <fmt/format.h>
#include <zip.h>

#include <array>
#include <bit>
#include <deque>
#include <new>
#include <utility>

#include "core/atomic_file.h"
#include "core/npy_header.h"
#include "weights/convert.h"
#include "weights/format.h"
#include "weights/json.h"
#include "weights/zip.h"

namespace mstpp {
namespace {

constexpr std::string_view kExtension = ".npy";
constexpr std::string_view kMetadata = "__metadata__.json";
constexpr size_t kMaxMetadata = size_t{1} << 20;
static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

DType ParseDescr(std::string_view descr, const std::string& where) {
  static constexpr std::array<std::pair<std::string_view, DType>, 12> kTypes = {
      {{"f8", DType::kF64},
       {"f4", DType::kF32},
       {"f2", DType::kF16},
       {"i8", DType::kI64},
       {"i4", DType::kI32},
       {"i2", DType::kI16},
       {"i1", DType::kI8},
       {"u8", DType::kU64},
       {"u4", DType::kU32},
       {"u2", DType::kU16},
       {"u1", DType::kU8},
       {"b1", DType::kBool}}};
  for (const auto& [known, dtype] : kTypes) {
    const bool ordered = descr.starts_with('<') || descr.starts_with('>');
    const bool orderless = ItemBytes(dtype) == 1 && descr.starts_with('|');
    if ((ordered || orderless) && descr.substr(1) == known) return dtype;
  }
  throw Error(ErrorCode::kUnsupported, where,
              "has elements of type " + Quoted(descr) + "; save it as float32");
}

// One array; its name is empty and its storage a part of `bytes`.
StoredTensor ParseNpy(Bytes bytes, const std::string& where) {
  NpyHeader header = ParseNpyHeader(bytes, where);
  StoredTensor tensor;
  tensor.dtype = ParseDescr(header.descr, where);
  tensor.big_endian = header.descr.starts_with('>');
  const auto count = static_cast<uint64_t>(CountElements(header.shape, where));
  tensor.strides =
      header.fortran_order ? ColumnMajorStrides(header.shape) : RowMajorStrides(header.shape);
  tensor.shape = std::move(header.shape);
  tensor.storage = bytes.subspan(header.bytes);
  const size_t item = ItemBytes(tensor.dtype);
  if (tensor.storage.size() % item != 0 || tensor.storage.size() / item != count) {
    throw Error(ErrorCode::kCorrupt, where,
                fmt::format("has {} bytes of data, its header says {} elements of {} bytes",
                            tensor.storage.size(), count, item));
  }
  return tensor;
}

std::map<std::string, std::string> ReadMetadata(const StoredTensor& array,
                                                const std::string& where) {
  if (array.dtype != DType::kU8 || array.storage.size() > kMaxMetadata) {
    throw Error(ErrorCode::kCorrupt, where, "its metadata are not an array of at most 2^20 bytes");
  }
  const std::string_view text(reinterpret_cast<const char*>(array.storage.data()),
                              array.storage.size());
  return ToMetadata(ParseJson(text, 1, where), where);
}

// An archive built in memory. The same contents give the same bytes: stored, in the order of Add,
// all with the earliest time that zip knows.
class ZipBuilder {
 public:
  explicit ZipBuilder(const std::string& path) : path_(path) {
    zip_error_init(&error_);
    buffer_ = zip_source_buffer_create(nullptr, 0, 0, &error_);
    if (buffer_ == nullptr) Fail(&error_);
    archive_ = zip_open_from_source(buffer_, ZIP_TRUNCATE, &error_);
    if (archive_ == nullptr) {
      zip_source_free(buffer_);
      Fail(&error_);
    }
    zip_source_keep(buffer_);
  }
  ~ZipBuilder() {
    if (archive_ != nullptr) zip_discard(archive_);
    zip_source_free(buffer_);
    zip_error_fini(&error_);
  }
  ZipBuilder(const ZipBuilder&) = delete;
  ZipBuilder& operator=(const ZipBuilder&) = delete;

  // `data` must live until Finish.
  void Add(const std::string& name, std::string header, Bytes data) {
    headers_.push_back(std::move(header));
    const std::string& kept = headers_.back();
    // libzip does not write through these pointers.
    zip_buffer_fragment_t parts[] = {
        {reinterpret_cast<zip_uint8_t*>(const_cast<char*>(kept.data())), kept.size()},
        {const_cast<zip_uint8_t*>(data.data()), data.size()}};
    zip_source_t* source = zip_source_buffer_fragment(archive_, parts, data.empty() ? 1 : 2, 0);
    if (source == nullptr) Fail(zip_get_error(archive_));
    const zip_int64_t index = zip_file_add(archive_, name.c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      zip_source_free(source);
      Fail(zip_get_error(archive_));
    }
    constexpr zip_uint16_t kFirstOf1980 = 1U << 5 | 1U;
    const auto entry = static_cast<zip_uint64_t>(index);
    if (zip_set_file_compression(archive_, entry, ZIP_CM_STORE, 0) != 0 ||
        zip_file_set_dostime(archive_, entry, 0, kFirstOf1980, 0) != 0) {
      Fail(zip_get_error(archive_));
    }
  }

  void Finish(AtomicFile* file) {
    if (zip_close(archive_) != 0) Fail(zip_get_error(archive_));
    archive_ = nullptr;
    if (zip_source_open(buffer_) != 0) Fail(zip_source_error(buffer_));
    std::vector<uint8_t> chunk(size_t{1} << 16);
    zip_int64_t got;
    while ((got = zip_source_read(buffer_, chunk.data(), chunk.size())) > 0) {
      file->Write(chunk.data(), static_cast<size_t>(got));
    }
    if (got < 0) Fail(zip_source_error(buffer_));
  }

 private:
  [[noreturn]] void Fail(zip_error_t* error) const {
    if (zip_error_code_zip(error) == ZIP_ER_MEMORY) throw std::bad_alloc();
    throw Error(ErrorCode::kInternal, path_,
                std::string("cannot build the archive: ") + zip_error_strerror(error));
  }

  const std::string& path_;
  zip_error_t error_;
  zip_source_t* buffer_ = nullptr;
  zip_t* archive_ = nullptr;
  std::deque<std::string> headers_;
};

Bytes AsBytes(const void* data, size_t bytes) { return {static_cast<const uint8_t*>(data), bytes}; }

}  // namespace

bool DetectNpz(const Source& source) { return IsZip(source.bytes); }

void ReadNpz(const Source& source, WeightsFile* file) {
  const ZipReader zip(source);
  for (const auto& [entry_name, entry] : zip.entries()) {
    const std::string where = Where(source.path, Quoted(entry_name));
    if (!entry_name.ends_with(kExtension)) {
      throw Error(ErrorCode::kUnsupported, where,
                  "is neither a NumPy array (.npy) nor part of a PyTorch file");
    }
    const std::vector<uint8_t> bytes = zip.Read(entry_name);
    StoredTensor tensor = ParseNpy(bytes, where);
    tensor.name = entry_name.substr(0, entry_name.size() - kExtension.size());
    if (tensor.name == kMetadata) {
      file->metadata = ReadMetadata(tensor, where);
    } else {
      AddTensor(source, tensor, file);
    }
  }
}

void WriteNpz(const std::string& path, const StateDict& tensors,
              const std::map<std::string, std::string>& metadata) {
  OrOutOfMemory(path, [&] {
    CheckWritable(path, tensors);
    std::string text;  // before the builder, which refers to it
    ZipBuilder zip(path);
    if (!metadata.empty()) {
      text = ToJson(metadata, path);
      zip.Add(std::string(kMetadata) + std::string(kExtension),
              MakeNpyHeader("|u1", {std::ssize(text)}), AsBytes(text.data(), text.size()));
    }
    for (const auto& [name, tensor] : tensors) {
      zip.Add(name + std::string(kExtension), MakeNpyHeader("<f4", tensor.shape),
              AsBytes(tensor.data.data(), tensor.data.size() * sizeof(float)));
    }
    AtomicFile file(path);
    zip.Finish(&file);
    file.Commit();
  });
}

}  // namespace mstpp
