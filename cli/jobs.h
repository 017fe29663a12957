// SPDX-License-Identifier: Apache-2.0
// What `mstpp run` is to read and to write, decided before any work begins.
#pragma once

#include <string>
#include <vector>

namespace mstpp::cli {

enum class InputKind { kPicture, kTensor };

struct Input {
  std::string path;
  InputKind kind = InputKind::kPicture;
};

struct Inputs {
  std::vector<Input> items;
  std::vector<std::string> skipped;  // files of folders that are not pictures
  bool any_folder = false;
};

// Files as they are given, whether they exist or not; of folders the pictures, by content or by a
// picture's file ending, sorted by name, without those in folders below and hidden ones. Throws
// Error for a folder that cannot be read or holds no picture.
Inputs FindInputs(const std::vector<std::string>& arguments);

struct OutputRequest {
  std::string out;                   // -o; empty: the current folder
  std::vector<std::string> formats;  // --format; empty if not given
  bool preview = false;
};

struct Job {
  Input input;
  std::vector<std::string> cubes;  // one a format, for WriteCube
  std::string preview;             // empty: none

  std::vector<std::string> Files() const;  // all that will be written
};

// Splits and checks "mat,npy". Throws UsageError.
std::vector<std::string> ParseFormats(const std::string& text);

// Throws UsageError if the request makes no sense, if two inputs lead to one file or if an input
// would be overwritten. Nothing is written yet.
std::vector<Job> PlanJobs(const Inputs& inputs, const OutputRequest& request);

// Makes the folders that the jobs write to. Throws Error (kIo).
void MakeFolders(const std::vector<Job>& jobs);

}  // namespace mstpp::cli
