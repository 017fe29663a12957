// SPDX-License-Identifier: Apache-2.0
#include "core/atomic_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "mstpp/error.h"

namespace mstpp {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class AtomicFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "mstpp_atomic_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_))
      names.push_back(entry.path().filename());
    return names;
  }

  fs::path folder_;
};

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteWhole(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.Write(text.data(), text.size());
  file.Commit();
}

std::string Refusal(const std::string& path) {
  try {
    WriteWhole(path, "x");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_EQ(error.where(), path);
    return error.what();
  }
  return "was written";
}

TEST_F(AtomicFileTest, AppearsOnlyWhenCommitted) {
  WriteWhole(Path("a"), "old");
  AtomicFile file(Path("a"));
  file.Write("new", 3);
  EXPECT_EQ(Read(Path("a")), "old");
  file.Commit();
  EXPECT_EQ(Read(Path("a")), "new");
}

TEST_F(AtomicFileTest, RemovedUnlessCommitted) {
  WriteWhole(Path("a"), "old");
  {
    AtomicFile file(Path("a"));
    file.Write("new", 3);
    EXPECT_EQ(Names().size(), 2);
  }
  EXPECT_EQ(Read(Path("a")), "old");
  EXPECT_THAT(Names(), UnorderedElementsAre("a"));
}

TEST_F(AtomicFileTest, LibrariesMayWriteThroughThePathUnderTheirOwnLock) {
  AtomicFile file(Path("a"));
  const int fd = ::open(file.path().c_str(), O_RDWR | O_TRUNC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);  // as HDF5 does
  EXPECT_EQ(::write(fd, "library", 7), 7);
  ::close(fd);
  file.Commit();
  EXPECT_EQ(Read(Path("a")), "library");
}

TEST_F(AtomicFileTest, RelativeAndLongNames) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  WriteWhole("plain", "x");
  fs::current_path(before);
  EXPECT_EQ(Read(Path("plain")), "x");

  const std::string longest(255, 'n');  // the most that ext4, xfs, btrfs and tmpfs take
  WriteWhole(Path(longest), "y");
  EXPECT_EQ(Read(Path(longest)), "y");
  EXPECT_THAT(Refusal(Path(longest + "n")), HasSubstr("shorter"));
}

TEST_F(AtomicFileTest, DeadWritersLitterIsRemovedAndLiveOnesKept) {
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(Path("a"));
    file.Write("half", 4);
    ::raise(SIGKILL);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ASSERT_EQ(Names().size(), 1);
  const std::string litter = Names()[0];

  AtomicFile other(Path("b"));
  EXPECT_TRUE(fs::exists(Path(litter))) << "removed by the writer of another target";
  AtomicFile first(Path("a"));
  EXPECT_FALSE(fs::exists(Path(litter)));
  AtomicFile second(Path("a"));
  EXPECT_TRUE(fs::exists(first.path()));
  first.Write("1", 1);
  second.Write("2", 1);
  second.Commit();
  EXPECT_EQ(Read(Path("a")), "2");
  first.Commit();
  EXPECT_EQ(Read(Path("a")), "1");
}

TEST_F(AtomicFileTest, AnotherProcesssLiveFileIsKept) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char c = 0;
    AtomicFile file(Path("a"));
    if (::write(to_parent[1], &c, 1) == 1 && ::read(to_child[0], &c, 1) == 1) {
      file.Write("child", 5);
      file.Commit();
    }
    ::_exit(0);
  }
  char c;
  ASSERT_EQ(::read(to_parent[0], &c, 1), 1);
  WriteWhole(Path("a"), "parent");
  EXPECT_EQ(Names().size(), 2);
  ASSERT_EQ(::write(to_child[1], &c, 1), 1);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(Read(Path("a")), "child");
  EXPECT_THAT(Names(), UnorderedElementsAre("a"));
}

TEST_F(AtomicFileTest, FilesThatOnlyLookLikeLitterStay) {
  const std::vector<std::string> mine = {".a.mstpp-tmp", ".a.0123456789abcdeg.mstpp-tmp",
                                         ".ab.0123456789abcdef.mstpp-tmp"};
  for (const std::string& name : mine) std::ofstream(Path(name)) << "mine";
  fs::create_directory(Path(".a.0123456789abcdef.mstpp-tmp"));
  WriteWhole(Path("a"), "x");
  EXPECT_EQ(Names().size(), 5);
}

TEST_F(AtomicFileTest, PermissionsOfTheOldFileAreKept) {
  const mode_t umask_before = ::umask(022);
  WriteWhole(Path("new"), "x");
  WriteWhole(Path("old"), "x");
  fs::permissions(Path("old"), fs::perms(0666));
  WriteWhole(Path("old"), "y");
  ::umask(umask_before);
  EXPECT_EQ(fs::status(Path("new")).permissions(), fs::perms(0644));
  EXPECT_EQ(fs::status(Path("old")).permissions(), fs::perms(0666));
}

TEST_F(AtomicFileTest, LinksStayAndTheirFilesAreReplaced) {
  fs::create_directory(Path("sub"));
  WriteWhole(Path("sub/file"), "old");
  fs::create_symlink("sub/file", Path("link"));
  fs::create_symlink("sub/fresh", Path("dangling"));
  WriteWhole(Path("link"), "new");
  WriteWhole(Path("dangling"), "made");
  EXPECT_TRUE(fs::is_symlink(Path("link")));
  EXPECT_EQ(Read(Path("sub/file")), "new");
  EXPECT_TRUE(fs::is_symlink(Path("dangling")));
  EXPECT_EQ(Read(Path("sub/fresh")), "made");

  fs::create_symlink("loop", Path("loop"));
  EXPECT_THAT(Refusal(Path("loop")), HasSubstr("symbolic link"));
}

TEST_F(AtomicFileTest, WhatIsNoFileIsRefusedAndKept) {
  EXPECT_THAT(Refusal("/dev/full"), HasSubstr("device or pipe"));
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  fs::create_directory(Path("folder"));
  EXPECT_THAT(Refusal(Path("folder")), HasSubstr("folder"));
  EXPECT_THAT(Refusal(Path("folder/")), HasSubstr("folder"));
  EXPECT_THAT(Refusal(""), HasSubstr("empty"));
  EXPECT_THAT(Refusal(Path("missing/file")), HasSubstr("create it"));
  WriteWhole(Path("file"), "x");
  EXPECT_THAT(Refusal(Path("file/below")), HasSubstr("not a folder"));
}

TEST_F(AtomicFileTest, WithoutPermissionAnErrorThatSaysSo) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  WriteWhole(Path("kept"), "x");
  fs::permissions(Path("kept"), fs::perms(0444));
  EXPECT_THAT(Refusal(Path("kept")), HasSubstr("permission"));
  EXPECT_EQ(Read(Path("kept")), "x");
  fs::permissions(folder_, fs::perms(0555));
  EXPECT_THAT(Refusal(Path("new")), HasSubstr("permission"));
  fs::permissions(folder_, fs::perms(0755));
}

// A limit on the size of files stands for a full disk: write() fails half way in both.
TEST_F(AtomicFileTest, AFailedWriteLeavesTheOldFileAndNoLitter) {
  WriteWhole(Path("a"), "old");
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    WriteWhole(Path("a"), std::string(1500, 'x'));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, AllOf(HasSubstr(Path("a")), HasSubstr("cannot write"), HasSubstr("limit")));
  EXPECT_EQ(Read(Path("a")), "old");
  EXPECT_THAT(Names(), UnorderedElementsAre("a"));
}

// Writers of one target in threads: a reader sees a whole file of one of them, always.
TEST_F(AtomicFileTest, ConcurrentWritersNeverMix) {
  WriteWhole(Path("a"), std::string(5000, '0'));
  std::atomic<bool> done = false;
  std::vector<std::thread> writers;
  for (char c = '1'; c <= '4'; ++c) {
    writers.emplace_back([&, c] {
      for (int i = 0; i < 20; ++i) WriteWhole(Path("a"), std::string(5000, c));
    });
  }
  std::thread reader([&] {
    while (!done) {
      const std::string text = Read(Path("a"));
      ASSERT_EQ(text, std::string(5000, text.empty() ? '?' : text[0]));
    }
  });
  for (std::thread& writer : writers) writer.join();
  done = true;
  reader.join();
  EXPECT_THAT(Names(), UnorderedElementsAre("a"));
}

}  // namespace
}  // namespace mstpp
