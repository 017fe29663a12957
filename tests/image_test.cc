// SPDX-License-Identifier: Apache-2.0
// Pictures of every kind, described by tests/data/images/images.json, which is written with them by
// tests/python/images/make_images.py.
#include "mstpp/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "io/image_reader.h"
#include "io/png_writer.h"
#include "mstpp/error.h"

namespace mstpp {
namespace {

using Bytes = std::vector<uint8_t>;
using testing::HasSubstr;

const std::string kFolder = MSTPP_TEST_DATA "/images/";

Bytes FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Case {
  std::string file;
  // What reading gives:
  int64_t width = 0, height = 0;
  float white = 0, tolerance = 0;
  std::vector<float> expected;
  // Or fails with:
  std::string error, says;
};

std::vector<float> Expected(const std::string& path, float white) {
  const Bytes raw = FileBytes(path);
  if (white == 255) return {raw.begin(), raw.end()};
  std::vector<float> values;
  const size_t step = white == 65535 ? 2 : 4;
  for (size_t at = 0; at + step <= raw.size(); at += step) {
    if (step == 2) {
      values.push_back(static_cast<float>(raw[at] | raw[at + 1] << 8));
    } else {
      float value;
      std::memcpy(&value, &raw[at], sizeof value);
      values.push_back(value);
    }
  }
  return values;
}

std::vector<Case> Cases() {
  std::ifstream file(kFolder + "images.json");
  std::vector<Case> cases;
  for (const auto& entry : nlohmann::json::parse(file)) {
    Case c;
    c.file = entry.at("file");
    if (entry.contains("error")) {
      c.error = entry.at("error");
      c.says = entry.at("says");
    } else {
      c.width = entry.at("width");
      c.height = entry.at("height");
      c.white = entry.at("white");
      c.tolerance = entry.at("tolerance");
      c.expected = Expected(kFolder + entry.at("expected").get<std::string>(), c.white);
    }
    cases.push_back(c);
  }
  return cases;
}

std::optional<Error> ErrorOf(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

class Kinds : public testing::TestWithParam<Case> {};

TEST_P(Kinds, ReadAsDocumented) {
  const Case& c = GetParam();
  const std::string path = kFolder + c.file;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Image image;
  const auto error = ErrorOf([&] { image = ReadImage(path); });
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  if (!c.error.empty()) {
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr(c.says));
    EXPECT_THAT(error->what(), HasSubstr(c.file));
    EXPECT_EQ(error->where(), path);
    EXPECT_EQ(error->code(), c.error == "corrupt" ? ErrorCode::kCorrupt : ErrorCode::kUnsupported);
    return;
  }
  ASSERT_FALSE(error) << error->what();
  EXPECT_EQ(image.width, c.width);
  EXPECT_EQ(image.height, c.height);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.white, c.white);
  EXPECT_EQ(image.source, path);
  ASSERT_EQ(image.data.size(), c.expected.size());
  float worst = 0;
  for (size_t i = 0; i < image.data.size(); ++i) {
    worst = std::max(worst, std::abs(image.data[i] - c.expected[i]));
  }
  EXPECT_LE(worst, c.tolerance);
}

INSTANTIATE_TEST_SUITE_P(Image, Kinds, testing::ValuesIn(Cases()), [](const auto& info) {
  std::string name = info.param.file;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

// The profile that most cameras and programs write for sRGB (Hewlett-Packard's) changes nothing.
TEST(Image, CommonSrgbProfile) {
  Bytes bytes = FileBytes(MSTPP_SOURCE_DIR "/examples/photo.jpg");
  const Image image = ReadImageFromMemory("photo.jpg", bytes);
  EXPECT_EQ(image.width, 451);
  EXPECT_EQ(image.height, 300);
  const std::string signature = "ICC_PROFILE";
  const auto profile = std::search(bytes.begin(), bytes.end(), signature.begin(), signature.end());
  ASSERT_NE(profile, bytes.end());
  profile[0] = 'X';  // now an application's own data, which readers skip
  EXPECT_EQ(ReadImageFromMemory("photo.jpg", bytes).data, image.data);
}

// A part of a file is refused, or all of its picture is read: never half of one.
TEST(Image, CutShortAnywhere) {
  for (const Case& c : Cases()) {
    if (!c.error.empty()) continue;
    const Bytes bytes = FileBytes(kFolder + c.file);
    const Image whole = ReadImageFromMemory(c.file, bytes);
    for (size_t length = 0; length < bytes.size(); ++length) {
      const Bytes part(bytes.begin(), bytes.begin() + static_cast<int64_t>(length));
      Image image;
      const auto error = ErrorOf([&] { image = ReadImageFromMemory(c.file, part); });
      if (error) {
        EXPECT_TRUE(error->code() == ErrorCode::kCorrupt ||
                    error->code() == ErrorCode::kUnsupported)
            << error->what();
      } else {
        ASSERT_EQ(image.data, whole.data) << c.file << " cut to " << length << " bytes";
      }
    }
  }
}

// Nothing in a PNG goes unchecked, so every flipped bit is noticed (or does not matter).
TEST(Image, EveryFlippedBitOfAPng) {
  for (const char* file : {"palette2.png", "turn6.png", "icc_p3.png", "rgb16_interlaced.png"}) {
    Bytes bytes = FileBytes(kFolder + file);
    const Image whole = ReadImageFromMemory(file, bytes);
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      bytes[bit / 8] ^= 1 << bit % 8;
      Image image;
      const auto error = ErrorOf([&] { image = ReadImageFromMemory(file, bytes); });
      if (!error) {
        ASSERT_EQ(image.data, whole.data) << file << " bit " << bit;
      }
      bytes[bit / 8] ^= 1 << bit % 8;
    }
  }
}

// JPEG and TIFF hold no checksums: what is asked is an error or some whole picture.
TEST(Image, EveryFlippedBitOfJpegAndTiff) {
  for (const char* file : {"420.jpg", "progressive.jpg", "turn6.jpg", "rgb8_tiled.tif",
                           "rgb8_jpeg.tif", "palette.tif", "rgb8_lzw.tif"}) {
    Bytes bytes = FileBytes(kFolder + file);
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      bytes[bit / 8] ^= 1 << bit % 8;
      const auto error = ErrorOf([&] {
        const Image image = ReadImageFromMemory(file, bytes, {.pixels = 1 << 13});
        EXPECT_GT(image.pixels(), 0);
        EXPECT_EQ(image.data.size(), static_cast<size_t>(3 * image.pixels()));
      });
      if (error) {
        EXPECT_NE(error->code(), ErrorCode::kInternal) << error->what();
      }
      bytes[bit / 8] ^= 1 << bit % 8;
    }
  }
}

TEST(Image, PathsThatAreNoPictures) {
  const auto code = [](const std::string& path) {
    const auto error = ErrorOf([&] { ReadImage(path); });
    EXPECT_TRUE(error) << path;
    if (error) {
      EXPECT_EQ(error->where(), path);
    }
    return error ? error->code() : ErrorCode::kInternal;
  };
  EXPECT_EQ(code(kFolder + "no_such_file.png"), ErrorCode::kNotFound);
  EXPECT_EQ(code(kFolder), ErrorCode::kIo);
  EXPECT_EQ(code("/dev/null"), ErrorCode::kIo);
  EXPECT_EQ(code(kFolder + "empty.png"), ErrorCode::kCorrupt);
}

// The budgets hold before any pixel is allocated.
TEST(Image, Budgets) {
  const Bytes bytes = FileBytes(kFolder + "rgb8.png");
  const Image image = ReadImageFromMemory("p", bytes);
  EXPECT_TRUE(ErrorOf([&] { ReadImageFromMemory("p", bytes, {.pixels = image.pixels() - 1}); }));
  EXPECT_FALSE(ErrorOf([&] { ReadImageFromMemory("p", bytes, {.pixels = image.pixels()}); }));

  const auto check = [](uint64_t width, uint64_t height, size_t bytes) -> std::optional<ErrorCode> {
    const Bytes content(bytes);
    const EncodedImage file{"p", content, {}};
    const auto error = ErrorOf([&] { CheckSize(file, width, height, 3, 1000); });
    return error ? std::optional(error->code()) : std::nullopt;
  };
  EXPECT_EQ(check(0, 5, 100), ErrorCode::kCorrupt);
  EXPECT_EQ(check(1 << 16, 1 << 15, 100), ErrorCode::kUnsupported);
  EXPECT_EQ(check(UINT64_MAX, UINT64_MAX, 100), ErrorCode::kUnsupported);
  EXPECT_EQ(check(20000, 20000, 100), ErrorCode::kCorrupt);
  EXPECT_EQ(check(1000, 1000, 3000), std::nullopt);
  EXPECT_EQ(check(1000, 1000, 2900), ErrorCode::kCorrupt);
  EXPECT_EQ(check(100, 100, 1), std::nullopt);
  const EncodedImage fat{"p", {}, {}};  // few pixels of many samples
  EXPECT_TRUE(ErrorOf([&] { CheckSize(fat, 100, 100, 1 << 16, 1000); }));
}

// Files too large to load are refused unread: these have 17 GiB, all holes.
TEST(Image, HugeFiles) {
  const std::string path = testing::TempDir() + "mstpp_huge.png";
  for (const std::string start : {"\x89PNG\r\n\x1a\n", "nothing"}) {
    std::ofstream(path, std::ios::binary) << start;
    std::error_code failed;
    std::filesystem::resize_file(path, uint64_t{17} << 30, failed);
    const auto error = ErrorOf([&] { ReadImage(path); });
    std::filesystem::remove(path);
    if (failed) GTEST_SKIP() << "no such files here: " << failed.message();
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::kUnsupported) << error->what();
  }
}

// libtiff's handlers are the process's own by default; ours belong to the file.
TEST(Image, ManyThreads) {
  const std::vector<Case> cases = Cases();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&cases] {
      for (const Case& c : cases) {
        const auto error = ErrorOf([&] { ReadImage(kFolder + c.file); });
        EXPECT_EQ(error.has_value(), !c.error.empty()) << c.file;
        if (error) {
          EXPECT_THAT(error->what(), HasSubstr(c.says));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class WrittenPng : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static Image Gradient(float white) {
    Image image;
    image.width = 13;
    image.height = 5;
    image.white = white;
    for (int i = 0; i < 3 * 13 * 5; ++i) image.data.push_back(std::floor(white * i / 194));
    return image;
  }

  const std::string folder_ = testing::TempDir() + "mstpp_png";
  const std::string path_ = folder_ + "/out.png";
};

TEST_F(WrittenPng, ReadsBackTheSame) {
  for (const float white : {255.0f, 65535.0f}) {
    const Image image = Gradient(white);
    WritePng(path_, image);
    const Image back = ReadImage(path_);
    EXPECT_EQ(back.width, image.width);
    EXPECT_EQ(back.white, image.white);
    EXPECT_EQ(back.data, image.data);
  }
}

TEST_F(WrittenPng, RoundsAndClips) {
  Image image = Gradient(255);
  image.data[0] = -3;
  image.data[1] = 300;
  image.data[2] = 7.4f;
  image.data[3] = 7.5f;
  image.data[4] = NAN;
  WritePng(path_, image);
  const Image back = ReadImage(path_);
  EXPECT_THAT(std::vector(back.data.begin(), back.data.begin() + 5),
              testing::ElementsAre(0, 255, 7, 8, 0));
}

TEST_F(WrittenPng, RefusesWhatItCannotWrite) {
  const auto code = [&](const Image& image) {
    const auto error = ErrorOf([&] { WritePng(path_, image); });
    return error ? error->code() : ErrorCode::kInternal;
  };
  Image image = Gradient(255);
  image.white = 1;
  EXPECT_EQ(code(image), ErrorCode::kInvalidArgument);
  image = Gradient(255);
  image.data.pop_back();
  EXPECT_EQ(code(image), ErrorCode::kInvalidArgument);
  image = Gradient(255);
  image.channels = 1;
  EXPECT_EQ(code(image), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(Image()), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// A write that fails inside libspng comes out as the file's own error, and the old file stays.
TEST_F(WrittenPng, DiskFull) {
  std::ofstream(path_) << "old";
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);  // writes past the limit fail instead
  const rlimit small = {60, old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto error = ErrorOf([&] { WritePng(path_, Gradient(65535)); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);

  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::kIo) << error->what();
  EXPECT_EQ(FileBytes(path_), (Bytes{'o', 'l', 'd'}));
  const std::filesystem::directory_iterator left(folder_);
  EXPECT_EQ(std::distance(begin(left), end(left)), 1);
}

TEST_F(WrittenPng, NoFolder) {
  EXPECT_TRUE(ErrorOf([&] { WritePng(folder_ + "/none/out.png", Gradient(255)); }));
}

}  // namespace
}  // namespace mstpp
