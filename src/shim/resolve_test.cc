// libdivvy.so preloaded into programs that find the (simulated) driver in every way that there is:
// each must meet the share. Real processes, the real library, a fake daemon.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "src/shim/testing/fake_daemon.h"

namespace divvy::shim {
namespace {

std::string Build(const std::string& file) {
  const char* build = getenv("DIVVY_BUILD_DIR");
  return std::string(build != nullptr ? build : "build") + "/" + file;
}

struct Outcome {
  std::string said;  // the last line
  int status;
  std::string all;
};

// Whatever went wrong, the lines before the last say what.
std::ostream& operator<<(std::ostream& to, const Outcome& o) {
  return to << "status " << o.status << ", it said:\n" << o.all;
}

Outcome RunProgram(const std::vector<std::string>& argv,
                   const std::vector<std::string>& environment) {
  int out[2];
  EXPECT_EQ(pipe(out), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(out[1], 1);
    close(out[0]);
    close(out[1]);
    std::vector<char*> a, e;
    for (auto& s : argv) a.push_back(const_cast<char*>(s.c_str()));
    for (auto& s : environment) e.push_back(const_cast<char*>(s.c_str()));
    a.push_back(nullptr);
    e.push_back(nullptr);
    execve(a[0], a.data(), e.data());
    _exit(127);
  }
  close(out[1]);
  std::string text;
  char block[512];
  for (ssize_t n; (n = read(out[0], block, sizeof(block))) > 0;)
    text.append(block, static_cast<size_t>(n));
  close(out[0]);
  int status;
  waitpid(child, &status, 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const size_t line = text.rfind('\n');
  return {line == std::string::npos ? text : text.substr(line + 1), status, text};
}

// One simulated machine for all tests; it ends by itself with this process.
struct Folder {
  std::string path;
  ~Folder() { std::filesystem::remove_all(path); }
};
const std::string& Machine() {
  static const Folder folder{[] {
    char name[] = "/tmp/divvy-resolve-sim-XXXXXX";
    const std::string made = mkdtemp(name);
    int ready[2];
    if (pipe(ready) != 0) abort();
    if (fork() == 0) {
      const std::string broker = Build("bin/divvy-sim-broker"), fd = std::to_string(ready[1]);
      close(ready[0]);
      execl(broker.c_str(), broker.c_str(), "--profile", "h100", "--dir", made.c_str(), "--linger",
            "0", "--ready-fd", fd.c_str(), nullptr);
      _exit(127);
    }
    // Its socket's name is there before it listens.
    close(ready[1]);
    char byte;
    if (read(ready[0], &byte, 1) != 1) abort();
    close(ready[0]);
    return made;
  }()};
  return folder.path;
}

std::vector<std::string> PlainEnvironment() {
  return {"DIVVY_SIM_DIR=" + Machine(), "LD_LIBRARY_PATH=" + Build("lib/sim")};
}

std::vector<uint8_t> DeviceUuid() {
  const Outcome o = RunProgram({Build("test/shim_probe"), "uuid"}, PlainEnvironment());
  const std::string hex = o.said;
  if (hex.size() != 32) ADD_FAILURE() << "no UUID: " << o;
  std::vector<uint8_t> uuid;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    uuid.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return uuid;
}

testing::FakeShare Share() {
  static const std::vector<uint8_t> uuid = DeviceUuid();
  testing::FakeShare share;
  share.limit_bytes = 2ull << 30;
  share.uuid = uuid;
  return share;
}

struct ResolveTest : ::testing::TestWithParam<const char*> {
  ResolveTest() : daemon({Share()}) {}
  std::vector<std::string> Environment(bool tenant = true) {
    std::vector<std::string> e = PlainEnvironment();
    e.push_back("LD_PRELOAD=" + Build("lib/libdivvy.so"));
    if (tenant) e.push_back("DIVVY_SOCKET=" + daemon.socket());
    return e;
  }
  void SetUp() override {
    char name[] = "/tmp/divvy-resolve-XXXXXX";
    scratch = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(scratch); }
  void Expect(const std::string& said, const std::vector<std::string>& argv, bool tenant = true) {
    const Outcome o = RunProgram(argv, Environment(tenant));
    EXPECT_EQ(o.said, said) << o;
  }
  std::string Copy() {
    const auto to = scratch / "libcuda.so.1";
    std::filesystem::copy_file(Build("lib/sim/libcuda.so.1"), to);
    return to.string();
  }
  testing::FakeDaemon daemon;
  std::filesystem::path scratch;
};

TEST_P(ResolveTest, MeetsTheShare) { Expect("refused", {Build("test/shim_probe"), GetParam()}); }
INSTANTIATE_TEST_SUITE_P(Ways, ResolveTest,
                         ::testing::Values("dlsym", "dlvsym", "default", "next", "dlmopen", "proc",
                                           "proc1", "dlsym-of-dlsym", "reopened", "atexit",
                                           "destructor", "fork", "threads"));

TEST_F(ResolveTest, ALinkedProgramMeetsTheShare) {
  Expect("refused", {Build("test/shim_probe_linked")});
}

TEST_F(ResolveTest, ADriverByAbsolutePathMeetsTheShare) {
  Expect("refused", {Build("test/shim_probe"), "dlsym", Build("lib/sim/libcuda.so.1")});
}

TEST_F(ResolveTest, APrivateCopyMeetsTheShare) {
  Expect("refused", {Build("test/shim_probe"), "dlsym", Copy()});
}

TEST_F(ResolveTest, ASecondCopyIsAnsweredFromTheFirst) {
  Expect("refused", {Build("test/shim_probe"), "two-copies", Copy()});
}

TEST_F(ResolveTest, ALibraryThatBindsDeepMeetsTheShare) {
  Expect("refused", {Build("test/shim_probe"), "plugin", Build("test/libshim_probe_plugin.so")});
}

struct CaptureTest : ResolveTest {};
TEST_P(CaptureTest, IsNotSpoiltByTheShimsOwnCalls) {
  Expect("recorded", {Build("test/shim_probe_capture"), GetParam()});
}
INSTANTIATE_TEST_SUITE_P(Modes, CaptureTest, ::testing::Values("0", "1", "2"));

TEST_F(ResolveTest, WhatDoesNotExistStaysUnfound) {
  Expect("unfound", {Build("test/shim_probe"), "missing"});
}

TEST_F(ResolveTest, AProgramThatIsNoTenantHasTheWholeDevice) {
  Expect("granted", {Build("test/shim_probe"), "dlsym"}, false);
  Expect("granted", {Build("test/shim_probe_linked")}, false);
}

TEST_F(ResolveTest, AProgramWithoutADriverRunsOn) {
  const Outcome o = RunProgram({"/bin/echo", "hello"}, Environment());
  EXPECT_EQ(o.said, "hello");
  EXPECT_EQ(daemon.hellos(), 0u) << "a process that never touches the GPU says nothing";
}

}  // namespace
}  // namespace divvy::shim
