// SPDX-License-Identifier: Apache-2.0
// Cubes written and read back in every format; what a failed write leaves behind.
#include "mstpp/cube.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "cube_testing.h"

namespace mstpp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Shape {
  int64_t bands, height, width;
};

class CubeTest : public FolderTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::string CubePath() const { return Path(std::string("cube") + GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Formats, CubeTest,
                         ::testing::Values(".mat", ".hdr", ".img", ".npy", ".tif", ".tiff"),
                         [](const auto& info) { return std::string(info.param + 1); });

TEST_P(CubeTest, ReadsBackWhatWasWritten) {
  for (const auto& [bands, height, width] :
       {Shape{1, 1, 1}, Shape{31, 1, 1}, Shape{1, 5, 7}, Shape{31, 5, 7}, Shape{31, 7, 5},
        Shape{2, 1, 300}, Shape{2, 300, 1}, Shape{31, 61, 90}, Shape{3, 600, 700}}) {
    SCOPED_TRACE(testing::Message() << bands << " x " << height << " x " << width);
    Cube cube = MakeCube(bands, height, width);
    cube.provenance = MakeProvenance();
    WriteCube(CubePath(), cube);
    ExpectEqual(ReadCube(CubePath()), cube);
  }
}

TEST_P(CubeTest, ReadsBackAFullScene) {
  const Cube cube = MakeCube(31, 482, 512);
  WriteCube(CubePath(), cube);
  ExpectEqual(ReadCube(CubePath()), cube);
}

TEST_P(CubeTest, KeepsEveryBit) {
  Cube cube = MakeCube(2, 2, 2);
  cube.data = {0.0F,
               -0.0F,
               std::numeric_limits<float>::infinity(),
               -std::numeric_limits<float>::infinity(),
               std::numeric_limits<float>::quiet_NaN(),
               std::numeric_limits<float>::denorm_min(),
               std::numeric_limits<float>::max(),
               std::nextafter(1.0F, 2.0F)};
  WriteCube(CubePath(), cube);
  const Cube back = ReadCube(CubePath());
  ASSERT_EQ(back.data.size(), cube.data.size());
  EXPECT_EQ(std::memcmp(back.data.data(), cube.data.data(), cube.data.size() * sizeof(float)), 0);
}

TEST_P(CubeTest, WithoutWavelengthsAndProvenance) {
  Cube cube = MakeCube(31, 3, 4);
  cube.wavelengths_nm.clear();
  WriteCube(CubePath(), cube);
  ExpectEqual(ReadCube(CubePath()), cube);
}

TEST_P(CubeTest, KeepsAwkwardWavelengths) {
  Cube cube = MakeCube(2, 3, 4);
  cube.wavelengths_nm = {1.0 / 3, 1e5 + 1e-9};
  WriteCube(CubePath(), cube);
  ExpectEqual(ReadCube(CubePath()), cube);
}

TEST_P(CubeTest, TheSameCubeMakesTheSameFiles) {
  Cube cube = MakeCube(31, 9, 8);
  cube.provenance = MakeProvenance();
  const std::vector<std::string> paths = CubePaths(CubePath());
  std::vector<std::string> first;
  WriteCube(CubePath(), cube);
  for (const std::string& path : paths) first.push_back(ReadBytes(path));
  ::sleep(1);  // a time of creation in seconds would differ
  WriteCube(CubePath(), cube);
  for (size_t i = 0; i < paths.size(); ++i) EXPECT_EQ(ReadBytes(paths[i]), first[i]) << paths[i];
}

TEST_P(CubeTest, MakesTheFilesOfCubePathsAndNoOther) {
  WriteCube(CubePath(), MakeCube(3, 2, 2));
  std::vector<std::string> paths = CubePaths(CubePath());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> names;
  for (const std::string& name : Names()) names.push_back(Path(name));
  EXPECT_EQ(names, paths);
}

TEST_P(CubeTest, ASourceNameThatIsNotUtf8IsWrittenAllTheSame) {
  Cube cube = MakeCube(1, 2, 2);
  cube.provenance.source = "photo\xFF.jpg";
  WriteCube(CubePath(), cube);
  EXPECT_EQ(ReadCube(CubePath()).provenance.source, "photo\xEF\xBF\xBD.jpg");
}

TEST_P(CubeTest, RefusesCubesThatAreNone) {
  const auto refusal = [&](const Cube& cube) {
    const Error error = ErrorOf([&] { WriteCube(CubePath(), cube); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.where(), CubePath());
    return std::string(error.what());
  };
  EXPECT_THAT(refusal(Cube{}), HasSubstr("it is 0 x 0 x 0"));
  Cube cube = MakeCube(2, 3, 4);
  cube.width = 3;
  EXPECT_THAT(refusal(cube), HasSubstr("24 numbers, not 2 x 3 x 3"));
  cube.width = -4;
  EXPECT_THAT(refusal(cube), HasSubstr("2 x 3 x -4"));
  cube = MakeCube(2, 3, 4);
  cube.bands = int64_t{1} << 62;
  cube.height = 4;
  EXPECT_THAT(refusal(cube), HasSubstr("24 numbers"));
  cube = MakeCube(2, 3, 4);
  cube.wavelengths_nm.pop_back();
  EXPECT_THAT(refusal(cube), HasSubstr("1 wavelengths for 2 bands"));
  cube.wavelengths_nm = {400, std::nan("")};
  EXPECT_THAT(refusal(cube), HasSubstr("a wavelength of nan"));
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_P(CubeTest, MissingFolder) {
  const std::string path = Path(std::string("none/cube") + GetParam());
  const Error error = ErrorOf([&] { WriteCube(path, MakeCube(1, 2, 2)); });
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_THAT(error.what(), HasSubstr("none"));
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_P(CubeTest, FolderWithoutPermission) {
  constexpr uid_t kNobody = 65534;  // root may write everywhere
  const bool root = ::geteuid() == 0;
  if (root) {
    ASSERT_EQ(::chown(folder_.c_str(), kNobody, kNobody), 0);
    ASSERT_EQ(::seteuid(kNobody), 0);
  }
  ASSERT_EQ(::chmod(folder_.c_str(), 0500), 0);
  const Error error = ErrorOf([&] { WriteCube(CubePath(), MakeCube(1, 2, 2)); });
  ASSERT_EQ(::seteuid(::getuid()), 0);
  ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_THAT(error.what(), HasSubstr("Permission denied"));
  EXPECT_THAT(Names(), ElementsAre());
}

// Files may grow to `bytes` during `work`: writes beyond fail, as on a full disk.
template <typename Work>
void WithFileSizeLimit(rlim_t bytes, const Work& work) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit limit{bytes, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  work();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
}

TEST_P(CubeTest, AWriteThatFailsAnywhereLeavesTheOldFiles) {
  Cube cube = MakeCube(3, 20, 30);
  WriteCube(CubePath(), cube);
  const std::vector<std::string> names = Names();
  std::vector<std::string> before;
  size_t longest = 0;
  for (const std::string& name : names) {
    before.push_back(ReadBytes(Path(name)));
    longest = std::max(longest, before.back().size());
  }
  cube.data[0] = -1;
  int failures = 0;
  for (size_t limit = 0; limit < longest; limit += limit < 1024 ? 16 : 509) {
    std::string what;
    ErrorCode code = ErrorCode::kInternal;
    WithFileSizeLimit(limit, [&] {
      try {
        WriteCube(CubePath(), cube);
      } catch (const Error& error) {
        code = error.code();
        what = error.what();
      }
    });
    ASSERT_EQ(code, ErrorCode::kIo) << "at " << limit << ": " << what;
    ASSERT_THAT(what, HasSubstr("File too large"));
    ASSERT_EQ(Names(), names);
    for (size_t i = 0; i < names.size(); ++i) ASSERT_EQ(ReadBytes(Path(names[i])), before[i]);
    ++failures;
  }
  EXPECT_GT(failures, 20);
  WriteCube(CubePath(), cube);  // and the libraries have not lost their heads
  ExpectEqual(ReadCube(CubePath()), cube);
}

TEST_P(CubeTest, FullDisk) {
  // A disk of our own, in a mount namespace that ends with the process.
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("none", folder_.c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mounting a small disk is not permitted here: run the tests as root";
  }
  const Cube small = MakeCube(1, 5, 7);
  WriteCube(CubePath(), small);
  const std::vector<std::string> names = Names();
  const Error error = ErrorOf([&] { WriteCube(CubePath(), MakeCube(31, 40, 50)); });
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_THAT(error.what(), HasSubstr("No space left on device; free some space"));
  EXPECT_EQ(Names(), names);
  ExpectEqual(ReadCube(CubePath()), small);
  ASSERT_EQ(::umount(folder_.c_str()), 0);
}

TEST_P(CubeTest, OnSeveralThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const Cube cube = MakeCube(3, 20 + i, 30);
      const std::string path = Path(std::to_string(i) + GetParam());
      for (int times = 0; times < 5; ++times) {
        WriteCube(path, cube);
        ExpectEqual(ReadCube(path), cube);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class CubePathTest : public FolderTest {};

TEST_F(CubePathTest, FilesOfEachFormat) {
  EXPECT_THAT(CubePaths("a.b/c.mat"), ElementsAre("a.b/c.mat"));
  EXPECT_THAT(CubePaths("a.b/c.hdr"), ElementsAre("a.b/c.img", "a.b/c.hdr"));
  EXPECT_THAT(CubePaths("a.b/c.img"), ElementsAre("a.b/c.img", "a.b/c.hdr"));
  EXPECT_THAT(CubePaths("c.d.npy"), ElementsAre("c.d.npy", "c.d.json"));
  EXPECT_THAT(CubePaths("c.TIF"), ElementsAre("c.TIF"));
  EXPECT_THAT(CubePaths("c.tiff"), ElementsAre("c.tiff"));
}

TEST_F(CubePathTest, UnknownExtensions) {
  for (const char* name : {"cube.png", "cube", "folder.mat/cube", ".mat", "cube.", ""}) {
    const Error error = ErrorOf([&] { WriteCube(name, MakeCube(1, 1, 1)); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << name;
    EXPECT_THAT(error.what(), HasSubstr("use .mat, .hdr or .img (ENVI), .npy, .tif or .tiff"));
    EXPECT_THROW(CubePaths(name), Error);
  }
  EXPECT_THAT(ErrorOf([] { CubePaths("cube.png"); }).what(), HasSubstr("the extension .png"));
}

TEST_F(CubePathTest, ReadsByContentNotByName) {
  const Cube cube = MakeCube(31, 4, 6);
  for (const char* name : {"a.mat", "a.npy", "a.tif"}) {
    WriteCube(Path(name), cube);
    std::filesystem::rename(Path(name), Path("misnamed.jpg"));
    EXPECT_TRUE(ReadCube(Path("misnamed.jpg")).data == cube.data) << name;
  }
}

TEST_F(CubePathTest, EnviPairsByTheirUsualNames) {
  const Cube cube = MakeCube(31, 4, 6);
  for (const auto& [data, header] : {std::pair("a.img", "a.hdr"),
                                     {"b.img", "b.img.hdr"},
                                     {"c", "c.hdr"},
                                     {"d.dat", "d.hdr"},
                                     {"e.raw", "e.HDR"},
                                     {"f.bsq", "f.bsq.hdr"}}) {
    SCOPED_TRACE(data);
    WriteCube(Path("written.hdr"), cube);
    std::filesystem::rename(Path("written.img"), Path(data));
    std::filesystem::rename(Path("written.hdr"), Path(header));
    ExpectEqual(ReadCube(Path(data)), cube);
    ExpectEqual(ReadCube(Path(header)), cube);
  }
}

}  // namespace
}  // namespace mstpp
