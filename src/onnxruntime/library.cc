// SPDX-License-Identifier: Apache-2.0
#include "onnxruntime/library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string_view>

#include "mstpp/error.h"

namespace mstpp::ort {
namespace {

constexpr char kInPackage[] = "/onnxruntime/capi/libonnxruntime.so*";

void LogNothing(void*, int, const char*, const char*, const char*, const char*) {}

std::vector<std::string> Glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  std::reverse(paths.begin(), paths.end());  // newer versions first
  return paths;
}

// Folders, as patterns, in which Python packages are installed.
std::vector<std::string> PackageFolders() {
  std::vector<std::string> folders;
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path == nullptr ? "" : path; !rest.empty();) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    const std::string folder(rest.substr(0, colon));
    rest.remove_prefix(std::min(colon + 1, rest.size()));
    if (!folder.starts_with('/') || ::access((folder + "/python3").c_str(), X_OK) != 0) continue;
    folders.push_back(folder + "/../lib/python3*/site-packages");
  }
  folders.insert(folders.end(),
                 {"/usr/local/lib/python3*/dist-packages", "/usr/lib/python3/dist-packages"});
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    folders.push_back(std::string(home) + "/.local/lib/python3*/site-packages");
  }
  return folders;
}

std::string LoadError() {
  const char* error = ::dlerror();
  return error == nullptr ? "unknown error" : error;
}

void* Open(const std::string& path) { return ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }

// The library and where it was found.
std::pair<void*, std::string> Find() {
  for (const char* name : {"libonnxruntime.so.1", "libonnxruntime.so"}) {
    if (void* handle = Open(name)) return {handle, name};
  }
  std::string broken;
  for (const std::string& folder : PackageFolders()) {
    for (const std::string& path : Glob(folder + kInPackage)) {
      if (void* handle = Open(path)) return {handle, path};
      broken += "; " + LoadError();
    }
  }
  throw Error(ErrorCode::kDeviceUnavailable, "",
              "no ONNX Runtime library (libonnxruntime.so) was found, neither by the system nor in "
              "Python's packages" +
                  broken);
}

// Whether "1.23.4" is at least 1.kApiVersion.
bool IsNewEnough(const std::string& version) {
  int major = 0;
  int minor = 0;
  const char* end = version.data() + version.size();
  const char* dot = std::from_chars(version.data(), end, major).ptr;
  if (dot != end) std::from_chars(dot + 1, end, minor);
  return major > 1 || (major == 1 && minor >= static_cast<int>(kApiVersion));
}

}  // namespace

const Library& Library::Load(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<const Library>> loaded;  // by `path`
  const std::lock_guard lock(mutex);
  std::unique_ptr<const Library>& library = loaded[path];
  if (library != nullptr) return *library;
  if (path.empty()) {
    const auto [handle, found] = Find();
    library.reset(new Library(handle, found));
  } else {
    void* handle = Open(path);
    if (handle == nullptr) {
      throw Error(ErrorCode::kDeviceUnavailable, path, "cannot be loaded: " + LoadError());
    }
    library.reset(new Library(handle, path));
  }
  return *library;
}

Library::Library(void* handle, std::string path) : path_(std::move(path)) {
  using GetBase = const ApiBase* (*)();
  const auto get_base = reinterpret_cast<GetBase>(::dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) {
    throw Error(ErrorCode::kDeviceUnavailable, path_, "is not ONNX Runtime's library");
  }
  Dl_info where{};
  if (::dladdr(reinterpret_cast<void*>(get_base), &where) != 0 && where.dli_fname != nullptr) {
    path_ = where.dli_fname;
  }
  const ApiBase* base = get_base();
  version_ = base->GetVersionString();
  // Asked first: GetApi writes to the error stream if it has no such version.
  if (IsNewEnough(version_)) api_ = base->GetApi(kApiVersion);
  if (api_ == nullptr) {
    throw Error(ErrorCode::kDeviceUnavailable, path_,
                fmt::format("is ONNX Runtime {}; 1.{} or newer is needed", version_, kApiVersion));
  }
  Check(api_->CreateEnvWithCustomLogger(LogNothing, nullptr, kLogFatal, "mstpp", &env_),
        "starting");
  char** names = nullptr;
  int count = 0;
  Check(api_->GetAvailableProviders(&names, &count), "listing its providers");
  providers_.assign(names, names + count);
  Check(api_->ReleaseAvailableProviders(names, count), "listing its providers");
}

bool Library::HasProvider(const std::string& name) const {
  return std::find(providers_.begin(), providers_.end(), name) != providers_.end();
}

void Library::Check(Status* status, const char* doing) const {
  if (status == nullptr) return;
  const Owned<Status> owned(status, api_->ReleaseStatus);
  const std::string message = api_->GetErrorMessage(status);
  const bool memory = message.find("allocate") != std::string::npos ||
                      message.find("bad_alloc") != std::string::npos ||
                      message.find("out of memory") != std::string::npos;
  throw Error(memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal, "ONNX Runtime " + version_,
              fmt::format("{}: {}", doing, message));
}

}  // namespace mstpp::ort
