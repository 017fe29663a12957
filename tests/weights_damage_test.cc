// SPDX-License-Identifier: Apache-2.0
// Damaged files of weights: an Error, or what the file said before. Anything else - a crash,
// another exception, other tensors - fails. Only safetensors, which has no checksum, may hold other
// numbers.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "weights_testing.h"

namespace mstpp::weights_testing {
namespace {

namespace fs = std::filesystem;

struct Sample {
  std::string format, bytes;
};

std::vector<Sample> SmallSamples() {
  const std::string three = Raw<float>({1, 2, 3});
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n";
  return {
      {"pth", SmallPth()},
      {"npz", MakeZip({{"a.npy", MakeNpy(header, three)}, {"b.npy", MakeNpy(header, three)}})},
      {"safetensors",
       MakeSafetensors(
           R"({"__metadata__":{"name":"x"},"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
           three)}};
}

std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The one-stage checkpoint of the golden data, in every format.
std::vector<Sample> RealSamples() {
  const std::string pth = MSTPP_TEST_DATA "/golden/stress_one_stage.pth";
  const StateDict tensors = ReadWeights(pth, false).tensors;
  std::vector<Sample> samples = {{"pth", Slurp(pth)}};
  const fs::path folder = fs::temp_directory_path();
  for (const std::string format : {"npz", "safetensors"}) {
    const std::string path =
        (folder / ("mstpp_damage_" + std::to_string(::getpid()) + "." + format)).string();
    (format == "npz" ? WriteNpz : WriteSafetensors)(path, tensors, {{"name", "stress"}});
    samples.push_back({format, Slurp(path)});
    fs::remove(path);
  }
  return samples;
}

// "" if reading `bytes` fails as it should, or gives what the intact file holds.
std::string Complaint(const std::string& bytes, const std::string& format,
                      const StateDict& intact) {
  try {
    const WeightsFile file = Read(bytes);
    for (const auto& [name, tensor] : file.tensors) {
      if (tensor.size() != std::ssize(tensor.data)) return "inconsistent tensor " + name;
      if (format == "safetensors") continue;
      if (!intact.contains(name)) return "new tensor " + name;
      if (tensor.shape != intact.at(name).shape) return "other shape of " + name;
      if (tensor.data != intact.at(name).data) return "other data of " + name;
    }
    if (file.tensors.size() != intact.size()) return "another number of tensors";
  } catch (const Error& error) {
    if (!error.where().starts_with("file")) return "no file in " + error.where();
    const bool expected =
        error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kUnsupported;
    if (!expected) return std::string("unexpected code: ") + error.what();
  }
  return "";
}

void ExpectRefused(std::string_view bytes) {
  EXPECT_THROW(Read(bytes), Error) << "the first " << bytes.size() << " bytes";
}

TEST(WeightsDamage, SmallFilesCutAnywhere) {
  for (const auto& [format, bytes] : SmallSamples()) {
    SCOPED_TRACE(format);
    // Copies, so that AddressSanitizer sees every step beyond the end.
    for (size_t length = 0; length < bytes.size(); ++length) ExpectRefused(bytes.substr(0, length));
  }
}

TEST(WeightsDamage, SmallFilesWithAnyBitFlipped) {
  for (const auto& [format, bytes] : SmallSamples()) {
    SCOPED_TRACE(format);
    const StateDict intact = Read(bytes).tensors;
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      std::string damaged = bytes;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
      EXPECT_EQ(Complaint(damaged, format, intact), "") << "bit " << bit;
    }
  }
}

TEST(WeightsDamage, SmallFilesWithBytesReplaced) {
  std::mt19937 random(1);
  for (const auto& [format, bytes] : SmallSamples()) {
    SCOPED_TRACE(format);
    const StateDict intact = Read(bytes).tensors;
    for (int round = 0; round < 5000; ++round) {
      std::string damaged = bytes;
      for (size_t n = 1 + random() % 4; n > 0; --n) {
        // Extremes as often as anything: lengths and counts are what can go wrong.
        const char extremes[] = {0, 1, '\x7f', '\x80', '\xff'};
        const char byte = random() % 2 == 0 ? extremes[random() % 5] : static_cast<char>(random());
        damaged[random() % damaged.size()] = byte;
      }
      EXPECT_EQ(Complaint(damaged, format, intact), "") << "round " << round;
    }
  }
}

TEST(WeightsDamage, SmallFilesWithPartsRemovedOrDoubled) {
  std::mt19937 random(2);
  for (const auto& [format, bytes] : SmallSamples()) {
    SCOPED_TRACE(format);
    const StateDict intact = Read(bytes).tensors;
    for (int round = 0; round < 3000; ++round) {
      std::string damaged = bytes;
      const size_t begin = random() % bytes.size();
      const size_t count = 1 + random() % (bytes.size() - begin);
      if (random() % 2 == 0) {
        damaged.erase(begin, count);
      } else {
        damaged.insert(random() % bytes.size(), bytes, begin, count);
      }
      EXPECT_EQ(Complaint(damaged, format, intact), "") << "round " << round;
    }
  }
}

// Every thousandth byte, and every one where the structure lies: at the beginning, and at the end
// of a zip archive.
TEST(WeightsDamage, RealFilesCut) {
  constexpr size_t kStride = 1000, kStructure = 9000;
  for (const auto& [format, bytes] : RealSamples()) {
    SCOPED_TRACE(format);
    const std::string_view whole = bytes;
    for (size_t length = 0; length < whole.size(); length += kStride) {
      ExpectRefused(whole.substr(0, length));
    }
    const size_t first = format == "safetensors" ? 0 : bytes.size() - kStructure;
    const size_t step = format == "safetensors" ? 1 : 7;
    for (size_t i = 0; i < kStructure; i += step) ExpectRefused(whole.substr(0, first + i));
  }
}

TEST(WeightsDamage, RealFilesWithBitsFlipped) {
  std::mt19937 random(3);
  for (const auto& [format, bytes] : RealSamples()) {
    SCOPED_TRACE(format);
    const StateDict intact = Read(bytes).tensors;
    for (int round = 0; round < 40; ++round) {
      std::string damaged = bytes;
      for (size_t n = 1 + random() % 8; n > 0; --n) {
        const size_t bit = random() % (8 * bytes.size());
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
      }
      EXPECT_EQ(Complaint(damaged, format, intact), "") << "round " << round;
    }
  }
}

}  // namespace
}  // namespace mstpp::weights_testing
