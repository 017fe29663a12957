// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace mstpp {

// What a long series of work has found so far, in a file: a line of JSON for each finding, added as
// soon as it is known. Whoever is killed and starts again with the same file finds what was found.
// One process may use a file at a time.
class Journal {
 public:
  // Opens the file or begins it. `setting` is an object of all that the findings depend on, apart
  // from what their keys name. Throws Error (kIo; kCorrupt: no such journal; kInvalidArgument: one
  // of another setting, naming what differs; kUnsupported: in use).
  Journal(const std::string& path, const nlohmann::ordered_json& setting);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  size_t size() const { return findings_.size(); }
  // Null if there is none.
  const nlohmann::ordered_json* Find(const std::string& key) const;
  // Throws Error (kIo).
  void Add(const std::string& key, const nlohmann::ordered_json& finding);

 private:
  void Load(const nlohmann::ordered_json& setting);
  void LoadLine(const std::string& line, size_t number, const nlohmann::ordered_json& setting);
  void AppendLine(const nlohmann::ordered_json& line);

  std::string path_;
  int fd_ = -1;
  int64_t end_ = 0;  // of the last whole line
  std::map<std::string, nlohmann::ordered_json> findings_;
};

}  // namespace mstpp
