// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace mstpp {

// Lower-case hexadecimal SHA-256 of a buffer (FIPS 180-4).
std::string Sha256(const void* data, size_t bytes);

}  // namespace mstpp
