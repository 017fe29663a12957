// SPDX-License-Identifier: Apache-2.0
#include "core/os_error.h"

#include <cerrno>
#include <system_error>

namespace mstpp {
namespace {

const char* Remedy(int error) {
  switch (error) {
    case ENOSPC:
      return "; free some space there or choose another disk";
    case EDQUOT:
      return "; free some of your disk quota or choose another disk";
    case EACCES:
    case EPERM:
      return "; check the permissions or choose another place";
    case EROFS:
      return "; choose a place that is not mounted read-only";
    case EFBIG:
      return "; raise the limit (ulimit -f) or choose a file system that takes such files";
    case ENAMETOOLONG:
      return "; choose a shorter name";
    case EMFILE:
    case ENFILE:
      return "; close some files or raise the limit (ulimit -n)";
    case ENOTDIR:
      return "; a part of the path is a file, not a folder";
    default:
      return "";
  }
}

}  // namespace

Error OsError(const std::string& path, const std::string& what, int error) {
  const ErrorCode code = error == ENOENT   ? ErrorCode::kNotFound
                         : error == ENOMEM ? ErrorCode::kOutOfMemory
                                           : ErrorCode::kIo;
  return Error(code, path, what + ": " + std::generic_category().message(error) + Remedy(error));
}

}  // namespace mstpp
