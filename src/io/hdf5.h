// SPDX-License-Identifier: Apache-2.0
// What every use of the HDF5 library here needs: one user at a time, silence, handles that close
// themselves, and a file to write that cannot fail inside the library.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

#include "mstpp/error.h"

namespace mstpp {

// Held during any use of HDF5: keeps other threads of mstpp out (the library may be built without
// locks) and the library from printing its errors. Must outlive every handle.
//
// HDF5's own printer stays off afterwards, in this thread: reading a damaged file loses some of the
// library's memory, and it would print about that when the program ends. A printer that the program
// has set is put back.
class Hdf5Session {
 public:
  Hdf5Session();
  ~Hdf5Session();
  Hdf5Session(const Hdf5Session&) = delete;
  Hdf5Session& operator=(const Hdf5Session&) = delete;

 private:
  std::lock_guard<std::mutex> lock_;
  H5E_auto2_t printer_ = nullptr;
  void* printer_data_ = nullptr;
};

// The innermost reason of the last failed HDF5 call.
std::string Hdf5Reason();

// The Error for a failed HDF5 call: `what` and the library's reason.
Error Hdf5Error(ErrorCode code, const std::string& path, const std::string& what);

// An HDF5 identifier and the function that closes it. Throws what Hdf5Error gives if it is invalid.
class Hdf5Handle {
 public:
  using CloseFunction = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, CloseFunction close, ErrorCode code, const std::string& path,
             const std::string& what)
      : id_(id), close_(close) {
    if (id < 0) throw Hdf5Error(code, path, what);
  }
  ~Hdf5Handle() { Close(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;

  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor): for the C calls
  bool Close() { return id_ < 0 || close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  CloseFunction close_;
};

// A file to write with HDF5 through a descriptor, by HDF5's virtual file driver interface. HDF5
// 1.10 crashes at exit if closing a file fails, as on a full disk: so this driver keeps the first
// failure to itself, tells HDF5 that all is well, and the writer asks for it.
class Hdf5Sink {
 public:
  explicit Hdf5Sink(int fd);  // throws Error (kInternal)

  // A property list for H5Fcreate. The sink must outlive the file.
  hid_t access() const { return access_; }
  // The errno of the first failed write, or 0. Later writes were left out.
  int error() const { return state_.error; }

  struct State {
    int fd = -1;
    int error = 0;
  };

 private:
  State state_;
  Hdf5Handle driver_;
  Hdf5Handle access_;
};

}  // namespace mstpp
