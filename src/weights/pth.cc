// SPDX-License-Identifier: Apache-2.0
// PyTorch's files since 1.6: a zip archive NAME/ with data.pkl (a pickle of everything but the
// numbers), data/KEY (one storage each, raw little-endian) and byteorder. The state dict is the
// pickled value or its item 'state_dict'; whatever else is there (epoch, optimizer) is passed over.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "weights/convert.h"
#include "weights/format.h"
#include "weights/pickle.h"
#include "weights/zip.h"

namespace mstpp {
namespace {

using Kind = PickleValue::Kind;

constexpr char kRemedy[] =
    ". In PyTorch, save it with torch.save({'state_dict': model.state_dict()}, path)";
constexpr std::string_view kPickleName = "/data.pkl";
// The first bytes of the layout before 1.6: a pickle of this number.
constexpr std::array<uint8_t, 14> kLegacyMagic = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                                  0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

bool IsLegacy(Bytes bytes) {
  return bytes.size() >= kLegacyMagic.size() &&
         std::equal(kLegacyMagic.begin(), kLegacyMagic.end(), bytes.begin());
}

// The archive's folder, without the slash: that of the only data.pkl at depth one.
std::string FindFolder(const ZipEntries& entries) {
  for (const auto& [name, entry] : entries) {
    if (name.ends_with(kPickleName) && name.find('/') == name.size() - kPickleName.size()) {
      return name.substr(0, name.size() - kPickleName.size());
    }
  }
  return "";
}

DType StorageType(std::string_view name, const std::string& where) {
  static constexpr std::array<std::pair<std::string_view, DType>, 9> kTypes = {
      {{"FloatStorage", DType::kF32},
       {"DoubleStorage", DType::kF64},
       {"HalfStorage", DType::kF16},
       {"BFloat16Storage", DType::kBF16},
       {"LongStorage", DType::kI64},
       {"IntStorage", DType::kI32},
       {"ShortStorage", DType::kI16},
       {"CharStorage", DType::kI8},
       {"ByteStorage", DType::kU8}}};
  for (const auto& [known, dtype] : kTypes) {
    if (name == known) return dtype;
  }
  if (name == "BoolStorage") return DType::kBool;
  throw Error(ErrorCode::kUnsupported, where,
              "has a storage of type " + Quoted(name) + "; convert the tensor with .float() first");
}

[[noreturn]] void Damaged(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kCorrupt, where, "damaged PyTorch file: " + message);
}

const PickleValue& Expect(const PickleValue* value, Kind kind, const std::string& where,
                          const char* what) {
  if (value->kind != kind) Damaged(where, std::string("wrong ") + what);
  return *value;
}

std::vector<int64_t> Integers(const PickleValue* tuple, const std::string& where,
                              const char* what) {
  std::vector<int64_t> integers;
  for (const PickleValue* item : Expect(tuple, Kind::kTuple, where, what).items) {
    integers.push_back(Expect(item, Kind::kInt, where, what).integer);
  }
  return integers;
}

// Reads the tensors of one archive. Tensors may share storages, so these are kept until the end.
class PthReader {
 public:
  PthReader(const Source& source, const ZipReader& zip, std::string folder, WeightsFile* file)
      : source_(source), zip_(zip), folder_(std::move(folder)), file_(file) {
    // Views of shared storages may count every byte of the file several times, but a tensor
    // expanded by strides of 0 must not fill the memory.
    uint64_t decoded = 0;
    for (const auto& [name, entry] : zip.entries()) decoded += entry.bytes;
    elements_left_ = kViewsOfAByte * static_cast<int64_t>(decoded);
  }

  void Add(const std::string& name, const PickleValue& tensor) {
    const std::string where = Where(source_.path, "tensor " + Quoted(name));
    const auto& arguments = tensor.items;
    StoredTensor stored;
    stored.name = name;
    stored.offset = Expect(arguments[1], Kind::kInt, where, "storage offset").integer;
    stored.shape = Integers(arguments[2], where, "shape");
    stored.strides = Integers(arguments[3], where, "strides");
    if (arguments.size() == 7 &&
        (arguments[6]->kind == Kind::kDict && !arguments[6]->items.empty())) {
      throw Error(ErrorCode::kUnsupported, where,
                  "is a lazy conjugate or negative; save tensor.resolve_conj().resolve_neg()");
    }
    const int64_t count = CountElements(stored.shape, where);
    if (count > elements_left_) {
      throw Error(ErrorCode::kUnsupported, where,
                  "the views of storages have far more elements than the file has bytes; save "
                  "tensor.contiguous()");
    }
    elements_left_ -= count;
    const PickleValue& storage = Expect(arguments[0], Kind::kStorage, where, "storage");
    stored.dtype =
        StorageType(Expect(storage.items[1], Kind::kGlobal, where, "storage").text, where);
    stored.storage = Storage(storage, stored.dtype, where);
    AddTensor(source_, stored, file_);
  }

 private:
  static constexpr int64_t kViewsOfAByte = 4;

  Bytes Storage(const PickleValue& storage, DType dtype, const std::string& where) {
    const std::string key(Expect(storage.items[2], Kind::kString, where, "storage key").text);
    const int64_t count = Expect(storage.items[4], Kind::kInt, where, "storage size").integer;
    auto found = storages_.find(key);
    if (found == storages_.end()) {
      found = storages_.emplace(key, zip_.Read(folder_ + "/data/" + key)).first;
    }
    const std::vector<uint8_t>& bytes = found->second;
    if (count < 0 || bytes.size() % ItemBytes(dtype) != 0 ||
        static_cast<uint64_t>(count) != bytes.size() / ItemBytes(dtype)) {
      Damaged(where, fmt::format("its storage {} should have {} elements but has {} bytes",
                                 Quoted(key), count, bytes.size()));
    }
    return bytes;
  }

  const Source& source_;
  const ZipReader& zip_;
  std::string folder_;
  WeightsFile* file_;
  int64_t elements_left_;
  std::map<std::string, std::vector<uint8_t>> storages_;
};

// The item of a dict, or null; the last one, as in Python.
const PickleValue* Find(const PickleValue& dict, std::string_view key) {
  const PickleValue* found = nullptr;
  for (size_t i = 0; i < dict.items.size(); i += 2) {
    if (dict.items[i]->kind == Kind::kString && dict.items[i]->text == key) {
      found = dict.items[i + 1];
    }
  }
  return found;
}

void RefuseTorchScript(const ZipReader& zip, const std::string& folder, const std::string& path) {
  if (zip.Has(folder + "/constants.pkl")) {
    throw Error(ErrorCode::kUnsupported, path,
                "is a TorchScript archive, which holds code. In PyTorch, save its weights with "
                "torch.save(torch.jit.load(path).state_dict(), new_path)");
  }
}

void RefuseBigEndian(const ZipReader& zip, const std::string& folder, const std::string& path) {
  const std::string name = folder + "/byteorder";
  if (!zip.Has(name)) return;
  const std::vector<uint8_t> order = zip.Read(name);
  if (std::string_view(reinterpret_cast<const char*>(order.data()), order.size()) != "little") {
    throw Error(ErrorCode::kUnsupported, Where(path, Quoted(name)),
                "the file was saved on a big-endian machine; save it again on a little-endian one");
  }
}

[[noreturn]] void ThrowNoTensors(const PickleValue& dict, const std::string& path) {
  constexpr size_t kShown = 8;
  std::string keys;
  for (size_t i = 0; i < dict.items.size() && i < 2 * kShown; i += 2) {
    if (dict.items[i]->kind == Kind::kString) {
      keys += (keys.empty() ? "" : ", ") + Quoted(dict.items[i]->text);
    }
  }
  throw Error(ErrorCode::kUnsupported, path,
              "has no tensors at its top or under 'state_dict', only the keys " +
                  (keys.empty() ? "none" : keys) + kRemedy);
}

}  // namespace

bool DetectPth(const Source& source) {
  if (IsLegacy(source.bytes)) return true;
  return IsZip(source.bytes) && !FindFolder(ListZip(source.path, source.bytes)).empty();
}

void ReadPth(const Source& source, WeightsFile* file) {
  if (IsLegacy(source.bytes)) {
    throw Error(ErrorCode::kUnsupported, source.path,
                "is in the layout of PyTorch before 1.6. In PyTorch 1.6 or later, save it again "
                "with torch.save(torch.load(path, map_location='cpu'), new_path)");
  }
  const ZipReader zip(source);
  const std::string folder = FindFolder(zip.entries());
  RefuseTorchScript(zip, folder, source.path);
  RefuseBigEndian(zip, folder, source.path);
  const std::string pickle_name = folder + std::string(kPickleName);
  const std::vector<uint8_t> pickled = zip.Read(pickle_name);
  const Pickle pickle(pickled, Where(source.path, Quoted(pickle_name)));

  const PickleValue& top = pickle.root();
  if (top.kind != Kind::kDict) {
    throw Error(ErrorCode::kUnsupported, source.path,
                std::string("its content is not a dict of tensors") + kRemedy);
  }
  const PickleValue* inner = Find(top, "state_dict");
  const PickleValue& state = inner != nullptr && inner->kind == Kind::kDict ? *inner : top;
  PthReader reader(source, zip, folder, file);
  for (size_t i = 0; i < state.items.size(); i += 2) {
    if (state.items[i + 1]->kind != Kind::kTensor) continue;
    const PickleValue& name =
        Expect(state.items[i], Kind::kString, source.path, "name of a tensor: it is not text");
    reader.Add(std::string(name.text), *state.items[i + 1]);
  }
  if (file->tensors.empty()) ThrowNoTensors(state, source.path);
}

}  // namespace mstpp
