// SPDX-License-Identifier: Apache-2.0
// Pickles as PyTorch writes them (protocols 2 to 5), read as data. A pickle is a program for a
// small stack machine that may name any Python function and call it; this machine knows four
// names (collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter,
// torch.*Storage), builds plain values for them, and refuses every other. Nothing in the file runs.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "weights/format.h"

namespace mstpp {

struct PickleValue {
  enum class Kind {
    kOpaque,   // None, bytes, sets, integers beyond 64 bits: nothing that weights need
    kBool,     // integer
    kInt,      // integer
    kFloat,    // not kept
    kString,   // text
    kTuple,    // items
    kList,     // items
    kDict,     // items: key, value, key, value; also OrderedDict
    kGlobal,   // text: OrderedDict, _rebuild_tensor_v2, _rebuild_parameter or a storage's class
    kStorage,  // items: the persistent identifier ('storage', class, key, location, elements)
    kTensor,   // items: the 6 or 7 arguments of _rebuild_tensor_v2
  };
  Kind kind = Kind::kOpaque;
  int64_t integer = 0;
  std::string_view text;                  // of the pickle's bytes
  std::vector<const PickleValue*> items;  // may form cycles: walk to a bounded depth only
};

class Pickle {
 public:
  // `bytes` must outlive the object. Error kCorrupt, or kUnsupported for what is valid but not
  // plain data. Work and memory are bounded by the pickle's length, at most 4 MiB; nothing recurs.
  Pickle(Bytes bytes, std::string where);

  const PickleValue& root() const { return *root_; }

 private:
  using Kind = PickleValue::Kind;
  using Items = std::vector<const PickleValue*>;

  // One group of opcodes each; false for an opcode of another group.
  bool Scalar(uint8_t opcode);
  bool Text(uint8_t opcode);
  bool Tuple(uint8_t opcode);
  bool Container(uint8_t opcode);
  bool Stack(uint8_t opcode);
  bool Object(uint8_t opcode);

  [[noreturn]] void Corrupt(const std::string& message) const;
  PickleValue* Push(Kind kind, int64_t integer = 0);
  void PushText(Kind kind, uint64_t bytes);
  void PushLong(uint64_t bytes);
  void PushItems(Kind kind, Items items);
  void PushGlobal(std::string_view module, std::string_view name);
  PickleValue* Pop();
  PickleValue* Pop(Kind kind);
  Items PopMany(size_t count);
  Items PopToMark();
  void Extend(Kind kind, const Items& items);
  void Remember(uint32_t slot);
  void Recall(uint32_t slot);
  void Call();
  void PersistentId();
  std::string_view Line();

  ByteReader reader_;
  std::deque<PickleValue> values_;  // all of them, so that cycles need no care
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;  // where in the stack
  std::map<uint32_t, PickleValue*> memo_;
  const PickleValue* root_ = nullptr;
};

}  // namespace mstpp
