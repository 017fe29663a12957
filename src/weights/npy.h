// SPDX-License-Identifier: Apache-2.0
// The header of NumPy's .npy files (versions 1 to 3 of the format).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/convert.h"

namespace mstpp {

// One array, its storage a part of `bytes`; the name is empty. Error kCorrupt, also if the data
// are not exactly as long as the header says; kUnsupported for objects, structures, texts, complex
// and extended numbers.
StoredTensor ParseNpy(Bytes bytes, const std::string& where);

// The header, magic and padding included, of a row-major little-endian array; `descr` is "<f4" or
// "|u1".
std::string MakeNpyHeader(std::string_view descr, const std::vector<int64_t>& shape);

}  // namespace mstpp
