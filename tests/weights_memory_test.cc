// SPDX-License-Identifier: Apache-2.0
// What reading and writing weights allocates: every failure becomes an Error, and a small file that
// claims to be large allocates next to nothing. This file replaces the allocation functions.
#include <malloc.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <new>

#include "weights_testing.h"

namespace {

int64_t allocations_left = -1;  // before one fails; negative: none does
size_t in_use = 0, peak = 0;

void* Allocate(size_t bytes) {
  if (allocations_left == 0) {
    allocations_left = -1;
    throw std::bad_alloc();
  }
  if (allocations_left > 0) --allocations_left;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  in_use += malloc_usable_size(memory);
  if (in_use > peak) peak = in_use;
  return memory;
}

void Free(void* memory) noexcept {
  if (memory != nullptr) in_use -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete[](void* memory, size_t) noexcept { Free(memory); }

namespace mstpp::weights_testing {
namespace {

namespace fs = std::filesystem;

const std::string kThree = Raw<float>({1, 2, 3});

std::string Npz(const std::string& shape, const std::string& data) {
  return MakeZip(
      {{"a.npy",
        MakeNpy("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + "}", data)}});
}

std::string Safetensors(const std::string& shape, const std::string& offsets) {
  return MakeSafetensors(R"({"__metadata__":{"name":"x"},"w":{"dtype":"F32","shape":)" + shape +
                             R"(,"data_offsets":)" + offsets + "}}",
                         kThree);
}

// Runs `work` with its first allocation failing, then its second, and so on until it succeeds.
void FailEachAllocation(const std::function<void()>& work) {
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 100000);
    try {
      allocations_left = n;
      work();
      const bool all_succeeded = allocations_left >= 0;
      allocations_left = -1;
      ASSERT_TRUE(all_succeeded) << "the failure of allocation " << n << " went unnoticed";
      EXPECT_GT(n, 5) << "hardly anything was tried";
      return;
    } catch (const Error& error) {
      allocations_left = -1;
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << "allocation " << n << error.what();
    }
  }
}

TEST(WeightsMemory, EveryAllocationOfTheReadersFailing) {
  for (const std::string& bytes : {SmallPth(), Npz("(3,)", kThree), Safetensors("[3]", "[0,12]")}) {
    FailEachAllocation([&] { Read(bytes); });
  }
}

TEST(WeightsMemory, EveryAllocationOfTheWritersFailing) {
  std::string folder = (fs::temp_directory_path() / "mstpp_memory_XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const StateDict tensors = {{"a", {{3}, {1, 2, 3}}}, {"b", {{1}, {4}}}};
  const std::map<std::string, std::string> metadata = {{"name", "x"}};
  const std::string path = folder + "/w", bystander = folder + "/.w.another";
  WriteNpz(bystander, tensors, metadata);
  for (const auto write : {WriteSafetensors, WriteNpz}) {
    FailEachAllocation([&] { write(path, tensors, metadata); });
    EXPECT_EQ(ReadWeights(path, false).tensors.size(), 2);
    fs::remove(path);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);  // no litter
  }
  fs::remove_all(folder);
}

TEST(WeightsMemory, LargeClaimsOfSmallFilesAllocateNothing) {
  const auto pth = [](int64_t elements, std::vector<int64_t> shape, std::vector<int64_t> strides) {
    const std::string storage = PickleStorage("FloatStorage", "0", elements);
    return MakePth(PickleDict({{"w", PickleTensor(storage, 0, shape, strides)}}), {{"0", kThree}});
  };
  std::string huge_header = Safetensors("[3]", "[0,12]");
  huge_header.replace(0, 8, Le(uint64_t{1} << 20, 8));
  constexpr int64_t kHuge = int64_t{1} << 32;
  for (const std::string& bytes :
       {pth(kHuge, {kHuge}, {1}), pth(3, {kHuge}, {0}), pth(3, {kHuge}, {1}),
        Npz("(4294967296,)", kThree), Safetensors("[4294967296]", "[0,17179869184]"), huge_header,
        MakeZip({{"m/data.pkl", "\x80\x02X\xff\xff\xff\x7f."}}),
        MakeZip({{"m/data.pkl", "\x80\x02\x8b\xff\xff\xff\x7f."}})}) {
    const size_t before = in_use;
    peak = before;
    EXPECT_THROW(Read(bytes), Error);
    EXPECT_LT(peak - before, 100000);
  }
}

// A pickle can ask for most by many small values.
TEST(WeightsMemory, PicklesStayWithinTheirBounds) {
  std::vector<std::string> greedy;
  for (const char* value : {"N", "]", "}", ")", "N\x85", "K\x01", "(", "NN\x86"}) {
    std::string pickle = "\x80\x02";
    while (pickle.size() < (size_t{4} << 20) - 10) pickle += value;
    greedy.push_back(pickle + ".");
  }
  std::string memo = std::string("\x80\x02") + "N";
  for (uint32_t i = 0; memo.size() < (size_t{4} << 20) - 10; ++i) memo += "r" + Le(i, 4);
  greedy.push_back(memo + ".");
  for (const std::string& pickle : greedy) {
    const std::string bytes = MakeZip({{"m/data.pkl", pickle}});
    const size_t before = in_use;
    peak = before;
    EXPECT_THROW(Read(bytes), Error);
    EXPECT_LT(peak - before, size_t{256} << 20);
  }
}

}  // namespace
}  // namespace mstpp::weights_testing
