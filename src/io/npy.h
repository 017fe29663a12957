// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy files of floating-point numbers in C order, read and written in pieces, so that a
// batch need not fit in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "io/input_file.h"

namespace mstpp {

class NpyReader {
 public:
  // Throws Error (kNotFound, kIo, kCorrupt; kUnsupported: not float32 or float64, Fortran order).
  explicit NpyReader(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const { return elements_; }  // in all

  // The next `count` numbers; float64 is rounded to float. Throws Error (kIo, kCorrupt).
  void Read(float* out, int64_t count);

 private:
  void CheckSize() const;

  InputFile file_;
  std::vector<int64_t> shape_;
  int64_t elements_ = 1;
  int bytes_each_ = 0;  // 4 or 8
  bool swap_ = false;
  uint64_t offset_ = 0;  // of the next number
};

// Writes float32, little-endian. The file appears with Commit.
class NpyWriter {
 public:
  // Throws Error (kIo).
  NpyWriter(const std::string& path, const std::vector<int64_t>& shape);

  // Appends `count` numbers. Throws Error (kIo).
  void Write(const float* data, int64_t count);

  // Throws Error (kIo; kInternal if not as many numbers were written as the shape says).
  void Commit();

 private:
  std::string path_;
  AtomicFile file_;
  int64_t left_ = 1;
};

}  // namespace mstpp
