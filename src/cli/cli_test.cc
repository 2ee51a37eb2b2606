// The CLI's parts that need no daemon: what it reads, what it prints, where it looks, how it runs a
// command.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "src/cli/app.h"
#include "src/cli/delivery/delivery.h"
#include "src/cli/process/supervise.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"

namespace divvy::cli {
namespace {

TEST(ParseDuration, ReadsWhatPeopleType) {
  EXPECT_EQ(*ParseDurationNs("20us"), 20'000);
  EXPECT_EQ(*ParseDurationNs("3ms"), 3'000'000);
  EXPECT_EQ(*ParseDurationNs("1.5s"), 1'500'000'000);
  EXPECT_EQ(*ParseDurationNs("2m"), 120'000'000'000);
  EXPECT_EQ(*ParseDurationNs("0s"), 0);
}

TEST(ParseDuration, RefusesNonsense) {
  for (const char* bad : {"", "10", "fast", "-1s", "nans", "infs", "1e300s", "1sec", "1 s"})
    EXPECT_FALSE(ParseDurationNs(bad).ok()) << bad;
}

TEST(Table, AlignsByColumnsOnTheScreen) {
  Table table({"NAME", "X"});
  table.Add({"überall", "1"});
  table.Add({"a", ""});
  EXPECT_EQ(table.ToString(), "NAME     X\nüberall  1\na\n");
}

TEST(Table, ShortForms) {
  EXPECT_EQ(Age(-3), "0s");
  EXPECT_EQ(Age(119), "119s");
  EXPECT_EQ(Age(120), "2m");
  EXPECT_EQ(Age(3 * 86400), "3d");
  EXPECT_EQ(Shortened("python train.py", 9), "python t…");
  EXPECT_EQ(Shortened("äöü", 3), "äöü");
  EXPECT_EQ(Shortened("äöüx", 3), "äö…");
  EXPECT_EQ(SignedAmount(-(2 << 20)), "-2 MiB");
  EXPECT_EQ(DurationText(20'100), "20.1 us");
}

TEST(CheckName, OneFolderName) {
  for (const char* good : {"a", "web-1", "A.b_c", "0"}) EXPECT_TRUE(CheckName(good).ok()) << good;
  for (const std::string& bad : {std::string(), std::string(".."), std::string("a/b"),
                                 std::string("-x"), std::string("a b"), std::string(64, 'a')})
    EXPECT_FALSE(CheckName(bad).ok()) << bad;
}

TEST(ExitStatus, PerCause) {
  EXPECT_EQ(StatusOf(Invalid("")), kBadInput);
  EXPECT_EQ(StatusOf(NoRoom("")), kRefused);
  EXPECT_EQ(StatusOf(NotFound("")), kNotThere);
  EXPECT_EQ(StatusOf(Unavailable("")), kNotThere);
  EXPECT_EQ(StatusOf(Internal("")), kFailed);
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/divvy-cli-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST_F(Folder, CopiesAreRealNativeLibrariesEachOnce) {
  std::filesystem::copy_file("/proc/self/exe", dir_ + "/libmine.so.9.8.7");
  std::filesystem::create_symlink("libmine.so.9.8.7", dir_ + "/libmine.so.1");
  std::filesystem::create_symlink("libmine.so.1", dir_ + "/libmine.so");
  std::ofstream(dir_ + "/libmine.so.text") << "INPUT(libmine.so.1)";
  std::filesystem::create_directory(dir_ + "/other");
  std::filesystem::copy_file("/proc/self/exe", dir_ + "/other/libmine.so.1");
  EXPECT_EQ(FindCopies("libmine.so.1", {dir_, dir_ + "/other", dir_ + "/missing"}),
            (std::vector<std::string>{dir_ + "/libmine.so.9.8.7", dir_ + "/other/libmine.so.1"}));
}

TEST_F(Folder, CopiesFollowTheLoadersOrder) {
  std::filesystem::copy_file("/proc/self/exe", dir_ + "/libmine.so.1");
  std::filesystem::create_directory(dir_ + "/first");
  std::filesystem::copy_file("/proc/self/exe", dir_ + "/first/libmine.so.1");
  ::setenv("LD_LIBRARY_PATH", (dir_ + "/first").c_str(), 1);
  EXPECT_EQ(FindCopies("libmine.so.1", {dir_}).front(), dir_ + "/first/libmine.so.1");
  ::unsetenv("LD_LIBRARY_PATH");
}

Status Nothing() { return {}; }

TEST(Supervise, StatusOfTheCommand) {
  const SignalWatch watch;
  const auto child = Launch({"sh", "-c", "exit 7"}, Nothing, &watch);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(watch.WaitFor(*child).status, 7);
}

TEST(Supervise, StatusAfterASignal) {
  const SignalWatch watch;
  const auto child = Launch({"sh", "-c", "kill -9 $$"}, Nothing, &watch);
  ASSERT_TRUE(child.ok());
  const Ended ended = watch.WaitFor(*child);
  EXPECT_EQ(ended.status, 137);
  EXPECT_EQ(ended.signal, 9);
}

TEST(Supervise, WhatFailsBeforeExecComesBack) {
  EXPECT_EQ(Launch({"/no/such/command"}, Nothing).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Launch({"/etc/passwd"}, Nothing).error().code, ErrorCode::kDenied);
  const auto refused = Launch({"true"}, [] { return Status(NoRoom("not today")); });
  EXPECT_EQ(refused.error().code, ErrorCode::kNoRoom);
  EXPECT_EQ(refused.error().message, "not today");
}

TEST(Supervise, CommandHasTheCallersSignals) {
  // Blocked here while waiting, but not in the command; what was ignored stays ignored.
  const SignalWatch watch;
  const auto child = Launch({"sh", "-c", "kill -TERM $$; exit 1"}, Nothing, &watch);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(watch.WaitFor(*child).signal, SIGTERM);
}

}  // namespace
}  // namespace divvy::cli
