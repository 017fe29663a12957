// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "mstpp/error.h"

namespace mstpp {

// The Error for a system call that failed with `error` (an errno) on the file `path`: what was
// being done ("cannot write"), the system's reason, and the remedy where one is known. kNotFound
// for a file that is not there, kOutOfMemory for ENOMEM, kIo for all else.
Error OsError(const std::string& path, const std::string& what, int error);

}  // namespace mstpp
