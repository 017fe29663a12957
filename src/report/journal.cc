// SPDX-License-Identifier: Apache-2.0
#include "report/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "core/os_error.h"
#include "io/input_file.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostBytes = uint64_t{1} << 30;
constexpr int kVersion = 1;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

// The first member in which two objects differ.
std::string FirstDifference(const Json& a, const Json& b) {
  const Json none;
  for (const Json* object : {&a, &b}) {
    for (const auto& [key, value] : object->items()) {
      const Json& in_a = a.contains(key) ? a.at(key) : none;
      const Json& in_b = b.contains(key) ? b.at(key) : none;
      if (in_a != in_b) return fmt::format("{} is {}, not {}", key, Dump(in_a), Dump(in_b));
    }
  }
  return "";
}

}  // namespace

Journal::Journal(const std::string& path, const Json& setting) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
  if (fd_ < 0) throw OsError(path, "cannot open the journal", errno);
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw Error(ErrorCode::kUnsupported, path, "another process is using this journal");
    }
    // As it is read back: a text that is mended when it is written must not differ for that.
    Load(Json::parse(Dump(setting)));
    if (end_ == 0) AppendLine({{"mstpp_journal", kVersion}, {"setting", setting}});
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Journal::~Journal() { ::close(fd_); }

const Json* Journal::Find(const std::string& key) const {
  const auto it = findings_.find(key);
  return it == findings_.end() ? nullptr : &it->second;
}

void Journal::Add(const std::string& key, const Json& finding) {
  AppendLine({{"key", key}, {"finding", finding}});
  findings_[key] = finding;
}

// What follows the last line feed was being written by a process that was killed; the next line
// takes its place.
void Journal::Load(const Json& setting) {
  const std::string text = InputFile(path_).ReadText(kMostBytes);
  size_t begin = 0;
  for (size_t number = 1; begin < text.size(); ++number) {
    const size_t feed = text.find('\n', begin);
    if (feed == std::string::npos && number > 1) break;
    LoadLine(text.substr(begin, feed - begin), number, setting);
    begin = feed + 1;
  }
  if (begin < text.size() && ::ftruncate(fd_, static_cast<off_t>(begin)) != 0) {
    throw OsError(path_, "cannot write", errno);
  }
  end_ = static_cast<int64_t>(begin);
}

void Journal::LoadLine(const std::string& line, size_t number, const Json& setting) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  const auto fail = [&](const char* what) {
    throw Error(ErrorCode::kCorrupt, path_,
                fmt::format("line {} is {}; name another file or remove this one", number, what));
  };
  if (number == 1) {
    if (!json.is_object() || json.value("mstpp_journal", Json()) != kVersion ||
        !json.contains("setting") || !json["setting"].is_object()) {
      fail("not the beginning of a journal of this version");
    }
    const std::string difference = FirstDifference(json["setting"], setting);
    if (difference.empty()) return;
    throw Error(ErrorCode::kInvalidArgument, path_,
                "the journal is of other work: its " + difference +
                    "; name another file, or remove this one to begin anew");
  }
  if (!json.is_object() || !json.contains("key") || !json["key"].is_string() ||
      !json.contains("finding")) {
    fail("not a finding");
  }
  findings_[json["key"].get<std::string>()] = json["finding"];
}

// Either the whole line is in the file afterwards or nothing of it.
void Journal::AppendLine(const Json& line) {
  const std::string text = Dump(line) + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::pwrite(fd_, text.data() + done, text.size() - done,
                                     static_cast<off_t>(end_ + static_cast<int64_t>(done)));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      static_cast<void>(::ftruncate(fd_, static_cast<off_t>(end_)) == 0);
      throw OsError(path_, "cannot write", error);
    }
    done += static_cast<size_t>(written);
  }
  end_ += static_cast<int64_t>(text.size());
}

}  // namespace mstpp
