// SPDX-License-Identifier: Apache-2.0
#include "core/byte_reader.h"

#include <fmt/format.h>

#include "mstpp/error.h"

namespace mstpp {

void ByteReader::ThrowEnd(uint64_t wanted) const {
  throw Error(ErrorCode::kCorrupt, where_,
              fmt::format("is cut off or damaged: {} bytes are wanted at byte {}, {} are there",
                          wanted, position_, left()));
}

}  // namespace mstpp
