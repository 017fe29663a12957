// SPDX-License-Identifier: Apache-2.0
#include "weights/pickle.h"

#include <fmt/format.h>

#include <utility>

#include "weights/pickle_opcodes.h"

namespace mstpp {
namespace {

constexpr size_t kMaxBytes = size_t{4} << 20;   // 50 kB for the 233 tensors of MST++
constexpr size_t kMaxValues = size_t{1} << 20;  // about 100 MB

constexpr char kRemedy[] =
    "; only the plain data of a state dict is read and nothing in the file is run. In PyTorch, "
    "save "
    "it with torch.save({'state_dict': model.state_dict()}, path)";

}  // namespace

Pickle::Pickle(Bytes bytes, std::string where) : reader_(bytes, std::move(where)) {
  if (bytes.size() > kMaxBytes) {
    throw Error(
        ErrorCode::kUnsupported, reader_.where(),
        fmt::format("has {} bytes; a state dict's has at most {}", bytes.size(), kMaxBytes));
  }
  while (true) {
    const auto opcode = reader_.Read<uint8_t>();
    if (opcode == pickle::kStop) break;
    if (!Scalar(opcode) && !Text(opcode) && !Tuple(opcode) && !Container(opcode) &&
        !Stack(opcode) && !Object(opcode)) {
      throw Error(ErrorCode::kUnsupported, reader_.where(),
                  fmt::format("opcode 0x{:02x} at byte {} is not read{}", opcode,
                              reader_.position() - 1, kRemedy));
    }
  }
  root_ = Pop();
  if (!stack_.empty() || !marks_.empty()) Corrupt("ends with more than one value");
  if (reader_.left() != 0) Corrupt("goes on after its end");
}

void Pickle::Corrupt(const std::string& message) const {
  throw Error(ErrorCode::kCorrupt, reader_.where(),
              fmt::format("damaged pickle, before byte {}: {}", reader_.position(), message));
}

bool Pickle::Scalar(uint8_t opcode) {
  switch (opcode) {
    case pickle::kNone:
      Push(Kind::kOpaque);
      return true;
    case pickle::kNewTrue:
    case pickle::kNewFalse:
      Push(Kind::kBool, opcode == pickle::kNewTrue ? 1 : 0);
      return true;
    case pickle::kBinInt:
      Push(Kind::kInt, static_cast<int32_t>(reader_.Read<uint32_t>()));
      return true;
    case pickle::kBinInt1:
      Push(Kind::kInt, reader_.Read<uint8_t>());
      return true;
    case pickle::kBinInt2:
      Push(Kind::kInt, reader_.Read<uint16_t>());
      return true;
    case pickle::kLong1:
      PushLong(reader_.Read<uint8_t>());
      return true;
    case pickle::kLong4:
      PushLong(reader_.Read<uint32_t>());
      return true;
    case pickle::kBinFloat:
      reader_.Take(8);
      Push(Kind::kOpaque);
      return true;
    default:
      return false;
  }
}

bool Pickle::Text(uint8_t opcode) {
  switch (opcode) {
    case pickle::kShortBinUnicode:
      PushText(Kind::kString, reader_.Read<uint8_t>());
      return true;
    case pickle::kBinUnicode:
      PushText(Kind::kString, reader_.Read<uint32_t>());
      return true;
    case pickle::kBinUnicode8:
      PushText(Kind::kString, reader_.Read<uint64_t>());
      return true;
    case pickle::kShortBinBytes:
      PushText(Kind::kOpaque, reader_.Read<uint8_t>());
      return true;
    case pickle::kBinBytes:
      PushText(Kind::kOpaque, reader_.Read<uint32_t>());
      return true;
    case pickle::kBinBytes8:
      PushText(Kind::kOpaque, reader_.Read<uint64_t>());
      return true;
    default:
      return false;
  }
}

bool Pickle::Tuple(uint8_t opcode) {
  switch (opcode) {
    case pickle::kEmptyTuple:
      PushItems(Kind::kTuple, {});
      return true;
    case pickle::kTuple1:
    case pickle::kTuple2:
    case pickle::kTuple3:
      PushItems(Kind::kTuple, PopMany(opcode - pickle::kTuple1 + 1));
      return true;
    case pickle::kTuple:
      PushItems(Kind::kTuple, PopToMark());
      return true;
    default:
      return false;
  }
}

bool Pickle::Container(uint8_t opcode) {
  switch (opcode) {
    case pickle::kEmptyList:
    case pickle::kEmptyDict:
    case pickle::kEmptySet:
      Push(opcode == pickle::kEmptyList
               ? Kind::kList
               : (opcode == pickle::kEmptyDict ? Kind::kDict : Kind::kOpaque));
      return true;
    case pickle::kList:
      PushItems(Kind::kList, PopToMark());
      return true;
    case pickle::kDict: {
      const Items items = PopToMark();
      Push(Kind::kDict);
      Extend(Kind::kDict, items);
      return true;
    }
    case pickle::kFrozenSet:
      PopToMark();
      Push(Kind::kOpaque);
      return true;
    case pickle::kAppend:
      Extend(Kind::kList, PopMany(1));
      return true;
    case pickle::kAppends:
      Extend(Kind::kList, PopToMark());
      return true;
    case pickle::kSetItem:
      Extend(Kind::kDict, PopMany(2));
      return true;
    case pickle::kSetItems:
      Extend(Kind::kDict, PopToMark());
      return true;
    case pickle::kAddItems:
      Extend(Kind::kOpaque, PopToMark());
      return true;
    default:
      return false;
  }
}

bool Pickle::Stack(uint8_t opcode) {
  switch (opcode) {
    case pickle::kProto:
      if (reader_.Read<uint8_t>() > 5) Corrupt("a protocol beyond 5");
      return true;
    case pickle::kFrame:
      reader_.Take(8);
      return true;
    case pickle::kMark:
      marks_.push_back(stack_.size());
      return true;
    case pickle::kPop:
      Pop();
      return true;
    case pickle::kPopMark:
      PopToMark();
      return true;
    case pickle::kDup:
      stack_.push_back(Pop());
      stack_.push_back(stack_.back());
      return true;
    case pickle::kBinPut:
      Remember(reader_.Read<uint8_t>());
      return true;
    case pickle::kLongBinPut:
      Remember(reader_.Read<uint32_t>());
      return true;
    case pickle::kMemoize:
      Remember(static_cast<uint32_t>(memo_.size()));
      return true;
    case pickle::kBinGet:
      Recall(reader_.Read<uint8_t>());
      return true;
    case pickle::kLongBinGet:
      Recall(reader_.Read<uint32_t>());
      return true;
    default:
      return false;
  }
}

bool Pickle::Object(uint8_t opcode) {
  switch (opcode) {
    case pickle::kGlobal: {
      const std::string_view module = Line();
      PushGlobal(module, Line());
      return true;
    }
    case pickle::kStackGlobal: {
      const std::string_view name = Pop(Kind::kString)->text;
      PushGlobal(Pop(Kind::kString)->text, name);
      return true;
    }
    case pickle::kReduce:
      Call();
      return true;
    case pickle::kBuild:  // the state that an OrderedDict of PyTorch carries beside its items:
                          // _metadata
      Pop();
      stack_.push_back(Pop(Kind::kDict));
      return true;
    case pickle::kBinPersId:
      PersistentId();
      return true;
    default:
      return false;
  }
}

PickleValue* Pickle::Push(Kind kind, int64_t integer) {
  if (values_.size() >= kMaxValues) Corrupt("more values than any state dict has");
  PickleValue& value = values_.emplace_back();
  value.kind = kind;
  value.integer = integer;
  stack_.push_back(&value);
  return &value;
}

void Pickle::PushText(Kind kind, uint64_t bytes) { Push(kind)->text = reader_.Text(bytes); }

void Pickle::PushLong(uint64_t bytes) {
  const Bytes digits = reader_.Take(bytes);  // two's complement, little-endian
  if (digits.size() > 8) {
    Push(Kind::kOpaque);
    return;
  }
  uint64_t value = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (size_t i = digits.size(); i-- > 0;) value = value << 8 | digits[i];
  Push(Kind::kInt, static_cast<int64_t>(value));
}

void Pickle::PushItems(Kind kind, Items items) { Push(kind)->items = std::move(items); }

void Pickle::PushGlobal(std::string_view module, std::string_view name) {
  const bool known =
      (module == "collections" && name == "OrderedDict") ||
      (module == "torch._utils" &&
       (name == "_rebuild_tensor_v2" || name == "_rebuild_parameter")) ||
      ((module == "torch" || module == "torch.storage") && name.ends_with("Storage"));
  if (!known) {
    throw Error(
        ErrorCode::kUnsupported, reader_.where(),
        fmt::format("uses {}{}", Quoted(std::string(module) + "." + std::string(name)), kRemedy));
  }
  Push(Kind::kGlobal)->text = name;
}

PickleValue* Pickle::Pop() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) Corrupt("takes a value too many");
  PickleValue* value = stack_.back();
  stack_.pop_back();
  return value;
}

PickleValue* Pickle::Pop(Kind kind) {
  PickleValue* value = Pop();
  if (value->kind != kind) Corrupt("a value of another kind is wanted");
  return value;
}

Pickle::Items Pickle::PopMany(size_t count) {
  Items items(count);
  while (count-- > 0) items[count] = Pop();
  return items;
}

Pickle::Items Pickle::PopToMark() {
  if (marks_.empty()) Corrupt("no mark is set");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  Items items(first, stack_.end());
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return items;
}

void Pickle::Extend(Kind kind, const Items& items) {
  PickleValue* container = Pop(kind);
  if (kind == Kind::kDict && items.size() % 2 != 0) Corrupt("a key without a value");
  container->items.insert(container->items.end(), items.begin(), items.end());
  stack_.push_back(container);
}

void Pickle::Remember(uint32_t slot) {
  PickleValue* value = Pop();
  stack_.push_back(value);
  memo_[slot] = value;
}

void Pickle::Recall(uint32_t slot) {
  const auto found = memo_.find(slot);
  if (found == memo_.end()) Corrupt(fmt::format("memo {} was never set", slot));
  stack_.push_back(found->second);
}

void Pickle::Call() {
  PickleValue* arguments = Pop(Kind::kTuple);
  const std::string_view callee = Pop(Kind::kGlobal)->text;
  if (callee == "OrderedDict" && arguments->items.empty()) {
    Push(Kind::kDict);
  } else if (callee == "_rebuild_tensor_v2" &&
             (arguments->items.size() == 6 || arguments->items.size() == 7)) {
    PushItems(Kind::kTensor, arguments->items);
  } else if (callee == "_rebuild_parameter" && arguments->items.size() == 3 &&
             arguments->items[0]->kind == Kind::kTensor) {
    PushItems(Kind::kTensor, arguments->items[0]->items);
  } else {
    Corrupt(fmt::format("calls {} in a way that PyTorch does not", Quoted(callee)));
  }
}

void Pickle::PersistentId() {
  PickleValue* id = Pop(Kind::kTuple);
  if (id->items.size() != 5) Corrupt("a persistent identifier that is not PyTorch's");
  PushItems(Kind::kStorage, id->items);
}

std::string_view Pickle::Line() {
  const size_t start = reader_.position();
  while (reader_.Read<uint8_t>() != '\n') {
  }
  const size_t length = reader_.position() - 1 - start;
  reader_.Seek(start);
  const std::string_view line = reader_.Text(length);
  reader_.Take(1);
  return line;
}

}  // namespace mstpp
