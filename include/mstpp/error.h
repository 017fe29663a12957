// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace mstpp {

enum class ErrorCode {
  kInvalidArgument,    // the caller asked for something that has no meaning
  kNotFound,           // a file, tensor or device that is not there
  kCorrupt,            // a file that breaks its own format
  kUnsupported,        // valid, but outside what this build or library handles
  kIo,                 // the operating system refused a read or a write
  kOutOfMemory,        // host or device memory exhausted
  kDeviceUnavailable,  // the backend exists but cannot be used here
  kInternal,           // a bug in mstpp
};

// The only exception type the library throws. what() is one sentence or more for a person: the
// place, what is wrong there, and the remedy where there is one.
class Error : public std::runtime_error {
 public:
  // `where` names the file, tensor, byte offset or argument: "photo.jpg", "w.pth: tensor conv_in".
  Error(ErrorCode code, std::string where, const std::string& message)
      : std::runtime_error(where.empty() ? message : where + ": " + message),
        code_(code),
        where_(std::move(where)) {}

  ErrorCode code() const noexcept { return code_; }
  const std::string& where() const noexcept { return where_; }

 private:
  ErrorCode code_;
  std::string where_;
};

}  // namespace mstpp
