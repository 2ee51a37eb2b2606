// The thin shells around the system: segments and their seals, locks, sockets, the state file,
// loop.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "src/daemon/locks.h"
#include "src/daemon/loop.h"
#include "src/daemon/segments.h"
#include "src/daemon/socket.h"
#include "src/daemon/state_file.h"

namespace divvy::daemon {
namespace {

class ShellsTest : public ::testing::Test {
 protected:
  ShellsTest() {
    char text[] = "/tmp/divvy-shells-XXXXXX";
    dir_ = ::mkdtemp(text);
  }
  ~ShellsTest() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST(Segments, TenantCannotWriteThePolicyNorResizeAnything) {
  auto made = Segments::Create("t", 42);
  ASSERT_TRUE(made.ok()) << made.error().message;
  Segments& s = **made;
  EXPECT_STREQ(s.policy().tenant, "t");
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s.policy_fd(), 0),
            MAP_FAILED);
  EXPECT_LT(::pwrite(s.policy_fd(), "x", 1, 0), 0);
  // Nor by opening it anew.
  const UniqueFd again(
      ::open(("/proc/self/fd/" + std::to_string(s.policy_fd())).c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0), MAP_FAILED);
  void* ro = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, again.get(), 0);
  ASSERT_NE(ro, MAP_FAILED);
  EXPECT_NE(::mprotect(ro, 4096, PROT_READ | PROT_WRITE), 0);
  s.policy().device[0].limit_bytes = 7;  // the daemon's own mapping still writes
  EXPECT_EQ(static_cast<region::Policy*>(ro)->device[0].limit_bytes.load(), 7u);
  ::munmap(ro, 4096);
  for (const int fd : {s.policy_fd(), s.usage_fd()}) {
    EXPECT_NE(::ftruncate(fd, 0), 0);
    EXPECT_NE(::ftruncate(fd, 1 << 30), 0);
    EXPECT_NE(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  }
  void* rw = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s.usage_fd(), 0);
  ASSERT_NE(rw, MAP_FAILED);
  EXPECT_TRUE(s.UsageHeadIntact());
  std::memset(rw, 0xff, 4096);
  EXPECT_FALSE(s.UsageHeadIntact());
  ::munmap(rw, 4096);
}

TEST_F(ShellsTest, LockTellsWhoHasIt) {
  auto first = TakeLock(dir_ + "/l", "pid 1, somewhere", "taken by ", 0666);
  ASSERT_TRUE(first.ok());
  const auto second = TakeLock(dir_ + "/l", "pid 2", "taken by ", 0666);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message, "taken by pid 1, somewhere");
  EXPECT_EQ(second.error().code, ErrorCode::kExists);
  first->reset();
  EXPECT_TRUE(TakeLock(dir_ + "/l", "pid 3", "", 0666).ok());
  struct stat st {};
  ::stat((dir_ + "/l").c_str(), &st);
  EXPECT_EQ(st.st_mode & 0777, 0666u);
  ASSERT_EQ(::symlink("/etc/passwd", (dir_ + "/s").c_str()), 0);
  EXPECT_FALSE(TakeLock(dir_ + "/s", "x", "", 0666).ok());  // never through a planted link
}

TEST_F(ShellsTest, SocketReplacesAStaleFileAndSaysWhoConnects) {
  std::ofstream(dir_ + "/s") << "stale";
  auto listener = ListenUnix(dir_ + "/s", SOCK_SEQPACKET, 0666);
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  const UniqueFd client(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  std::strcpy(address.sun_path, (dir_ + "/s").c_str());
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const UniqueFd server(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  const auto peer = PeerOf(server.get());
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::geteuid());
}

TEST_F(ShellsTest, LongSocketPathsWork) {
  const std::string deep = dir_ + "/" + std::string(120, 'd');
  std::filesystem::create_directory(deep);
  const auto listener = ListenUnix(deep + "/tenant.sock", SOCK_SEQPACKET, 0666);
  ASSERT_TRUE(listener.ok()) << listener.error().message;
  EXPECT_TRUE(std::filesystem::is_socket(deep + "/tenant.sock"));
  EXPECT_FALSE(ListenUnix(deep + "/" + std::string(100, 'x'), SOCK_SEQPACKET, 0666).ok());
}

TEST_F(ShellsTest, StateIsEitherOldOrNew) {
  const std::string path = dir_ + "/state.json";
  EXPECT_TRUE(LoadState(path)->tenants.empty());
  TenantRecord record{.name = "t", .device_uuids = {"GPU-a"}};
  record.share.mem = record.share.mem_max = 1_GiB;
  const std::string text = RecordText(record);
  ASSERT_TRUE(SaveStateFile(path, {&text, &text}, nlohmann::json::object(), true).ok());
  EXPECT_EQ(LoadState(path)->tenants.size(), 2u);
  EXPECT_EQ(LoadState(path)->tenants.at(0).name, "t");
  for (const char* damage : {"", "{", R"({"version":1})", R"({"version":9,"tenants":[]})",
                             R"({"version":1,"tenants":[{}]})", R"({"version":1,"tenants":{}})"}) {
    std::ofstream(path) << damage;
    EXPECT_EQ(LoadState(path).error().code, ErrorCode::kInvalid) << damage;
  }
  EXPECT_FALSE(SaveStateFile(dir_ + "/nowhere/state.json", {}, {}, true).ok());
}

TEST_F(ShellsTest, FullDiskKeepsTheOldState) {
  // /dev/full cannot be renamed onto; a tmpfs of one page can be filled. Needs root.
  if (::geteuid() != 0) GTEST_SKIP() << "mounting a tmpfs needs root";
  const std::string small = dir_ + "/small";
  std::filesystem::create_directory(small);
  if (std::system(("mount -t tmpfs -o size=8k none " + small + " 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << "no tmpfs here";
  const nlohmann::json none = nlohmann::json::object();
  EXPECT_TRUE(SaveStateFile(small + "/state.json", {}, none, true).ok());
  const std::string large(100'000, 'x');
  EXPECT_FALSE(SaveStateFile(small + "/state.json", {&large}, none, true).ok());
  EXPECT_TRUE(LoadState(small + "/state.json").ok());
  EXPECT_EQ(std::system(("umount " + small).c_str()), 0);
}

TEST(Loop, CallsBackAndStops) {
  auto loop = Loop::Create();
  ASSERT_TRUE(loop.ok());
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
  int calls = 0;
  uint64_t id = 0;
  id = (*loop)->Add(pipe[0], [&] {
    char byte;
    EXPECT_EQ(::read(pipe[0], &byte, 1), 1);
    if (++calls == 2) (*loop)->Remove(id, pipe[0]);
    if (calls == 2) (*loop)->Stop();
  });
  std::thread writer([&] { EXPECT_EQ(::write(pipe[1], "xyz", 3), 3); });
  (*loop)->Run();
  writer.join();
  EXPECT_EQ(calls, 2);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

}  // namespace
}  // namespace divvy::daemon
