// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "onnxruntime/api.h"

namespace mstpp::ort {

// ONNX Runtime's library, loaded at run time. Once loaded it stays until the process ends.
class Library {
 public:
  // From `path`; if that is empty, from the first place that has it: where the system looks for
  // libraries, then the Python package "onnxruntime" of the python3 on PATH, of the system and of
  // the user. Throws Error (kDeviceUnavailable): what is missing.
  static const Library& Load(const std::string& path);

  const Api& api() const { return *api_; }
  Env* env() const { return env_; }
  const std::string& path() const { return path_; }
  const std::string& version() const { return version_; }
  // "CPUExecutionProvider", "CUDAExecutionProvider", ...
  const std::vector<std::string>& providers() const { return providers_; }
  bool HasProvider(const std::string& name) const;

  // Throws Error (kOutOfMemory, kInternal) unless `status` is null.
  void Check(Status* status, const char* doing) const;

 private:
  Library(void* handle, std::string path);

  const Api* api_ = nullptr;
  Env* env_ = nullptr;
  std::string path_, version_;
  std::vector<std::string> providers_;
};

// Objects of the library, released by it.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

// OWNED = Create(api.CreateX, api.ReleaseX, arguments...)
template <typename T, typename Creator, typename... Arguments>
Owned<T> Create(const Library& library, const char* doing, Creator creator, void (*release)(T*),
                Arguments... arguments) {
  T* object = nullptr;
  library.Check(creator(arguments..., &object), doing);
  return {object, release};
}

}  // namespace mstpp::ort
