// divvy-hook on made-up roots, in a mount namespace that each test has for itself.
#include <elf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "src/base/delivery.h"
#include "src/hook/container.h"
#include "src/hook/copies.h"
#include "src/hook/deliver.h"
#include "src/hook/root.h"

namespace divvy::hook {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kGlibc[] = "/lib64/ld-linux-x86-64.so.2";
constexpr char kDebianDir[] = "/usr/lib/x86_64-linux-gnu";

std::string Elf(const std::string& tail, uint8_t klass = ELFCLASS64, uint16_t machine = EM_X86_64) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = klass;
  header.e_machine = machine;
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + tail;
}

class HookTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "divvy-hook-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    base_ = folder;
    root_ = base_ + "/root";
    fs::create_directories(root_ + "/etc");
    options_ = {base_ + "/tenants/web", base_ + "/lib"};
    Write(options_.tenant_dir + "/tenant", "web\n");
    Write(options_.lib_dir + "/libdivvy.so", Elf("shim"));
    Write(options_.lib_dir + "/libdivvy32.so", Elf("none", ELFCLASS32, EM_386));
    Write(options_.lib_dir + "/libcuda-forward/libcuda.so.1", Elf("forwarder"));
    container_.id = "c1";
    container_.root = root_;
  }
  void TearDown() override { fs::remove_all(base_); }

  static void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void InRoot(const std::string& path, const std::string& text) { Write(root_ + path, text); }
  void Link(const std::string& path, const std::string& to) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    fs::create_symlink(to, root_ + path);
  }
  std::string Root(const std::string& path) { return Read(root_ + path); }

  std::vector<std::string> Copies() {
    const Result<hook::Root> root = hook::Root::At(root_);
    EXPECT_TRUE(root.ok());
    std::vector<std::string> paths;
    for (const Copy& copy : FindCopies(*root, container_)) paths.push_back(copy.path);
    return paths;
  }

  // What `body` checks in a process with a mount namespace of its own. False: not possible here.
  static bool Apart(const std::function<void()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      const int flags = CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER);
      if (::unshare(flags) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        ::_exit(77);
      body();
      std::fflush(stdout);
      ::_exit(testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "see the failures above";
    return true;
  }
  void Delivered(const std::function<void()>& body, const std::string& but = "") {
    const bool apart = Apart([&] {
      const Result<std::string> done = Deliver(container_, options_);
      ASSERT_TRUE(done.ok()) << done.error().message;
      EXPECT_THAT(*done, HasSubstr(but));
      if (but.empty()) {
        EXPECT_EQ(*done, "");
      }
      body();
    });
    if (!apart) GTEST_SKIP() << "no mount namespace can be made here";
  }
  void Refused(const std::string& why) {
    const bool apart = Apart([&] {
      const Result<std::string> done = Deliver(container_, options_);
      ASSERT_FALSE(done.ok()) << *done;
      EXPECT_THAT(done.error().message, HasSubstr(why));
    });
    if (!apart) GTEST_SKIP() << "no mount namespace can be made here";
  }

  std::string base_, root_;
  Options options_;
  Container container_;
};

TEST_F(HookTest, AUsualImage) {
  const std::string dir = kDebianDir;
  InRoot(kGlibc, "");
  InRoot(dir + "/libcuda.so.580.65.06", Elf("real"));
  Link(dir + "/libcuda.so.1", "libcuda.so.580.65.06");
  Link(dir + "/libcuda.so", "libcuda.so.1");
  InRoot("/usr/local/cuda-12.8/compat/libcuda.so.570.10", Elf("compat"));
  InRoot("/etc/ld.so.preload", "/opt/own.so\n");
  Delivered([&] {
    for (const char* name : {"/libcuda.so", "/libcuda.so.1", "/libcuda.so.580.65.06"})
      EXPECT_EQ(Root(dir + name), Elf("forwarder")) << name;
    EXPECT_EQ(Root("/usr/local/cuda-12.8/compat/libcuda.so.570.10"), Elf("forwarder"));
    EXPECT_EQ(Root("/run/divvy/real/libcuda.so.1"), Elf("real"));
    EXPECT_EQ(Root("/run/divvy/self/tenant"), "web\n");
    EXPECT_EQ(Root("/run/divvy/lib/libdivvy.so"), Elf("shim"));
    EXPECT_EQ(Root("/etc/ld.so.preload"), "/run/divvy/lib/libdivvy.so\n/opt/own.so\n");
    EXPECT_TRUE(fs::exists(root_ + "/run/divvy/tenant"));  // fails closed without its folder
    for (const std::string& path : {std::string("/run/divvy"), std::string("/run/divvy/self"),
                                    std::string("/run/divvy/lib/libdivvy.so"),
                                    std::string("/etc/ld.so.preload"), dir + "/libcuda.so.1"}) {
      struct statvfs st {};
      ASSERT_EQ(::statvfs((root_ + path).c_str(), &st), 0) << path;
      EXPECT_NE(st.f_flag & ST_RDONLY, 0u) << path << " may be written to from the container";
    }
  });
  // The image is as it was, but for mount points.
  EXPECT_EQ(Root(dir + "/libcuda.so.1"), Elf("real"));
  EXPECT_EQ(Root("/etc/ld.so.preload"), "/opt/own.so\n");
  EXPECT_TRUE(fs::is_empty(root_ + "/run/divvy"));
}

TEST_F(HookTest, AContainerThatStartsAgain) {
  InRoot(kGlibc, "");
  InRoot(std::string(kDebianDir) + "/libcuda.so.1", Elf("real"));
  for (int start = 0; start < 2; ++start)
    Delivered([&] { EXPECT_EQ(Root("/run/divvy/real/libcuda.so.1"), Elf("real")); });
}

TEST_F(HookTest, EveryWayToNameAFolder) {
  container_.library_path = {"/opt/app/lib"};
  container_.driver_mounts = {"/driver"};
  InRoot("/opt/app/lib/libcuda.so.1", Elf("a"));
  InRoot("/driver/libcuda.so.580", Elf("b"));
  InRoot("/etc/ld.so.conf", "# libs\ninclude ld.so.conf.d/*.conf\n/opt/x, /opt/y:/opt/z=libc6\n");
  InRoot("/etc/ld.so.conf.d/cuda.conf", "/opt/conf  # there\n");
  InRoot("/etc/ld.so.conf.d/loop.conf", "include /etc/ld.so.conf\n");
  for (const char* dir : {"/opt/conf", "/opt/x", "/opt/y", "/opt/z", "/usr/lib64",
                          "/usr/lib/wsl/lib", "/usr/local/cuda/compat/lib.real"})
    InRoot(std::string(dir) + "/libcuda.so.1", Elf(dir));
  EXPECT_THAT(Copies(), ElementsAre("/opt/app/lib/libcuda.so.1", "/driver/libcuda.so.580",
                                    "/opt/conf/libcuda.so.1", "/opt/x/libcuda.so.1",
                                    "/opt/y/libcuda.so.1", "/opt/z/libcuda.so.1",
                                    "/usr/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1",
                                    "/usr/local/cuda/compat/lib.real/libcuda.so.1"));
}

TEST_F(HookTest, OnlyDriversOfThisMachine) {
  const std::string dir = kDebianDir;
  InRoot("/usr/lib/libcuda.so.1", Elf("32", ELFCLASS32, EM_386));
  InRoot(dir + "/libcuda.so.1", Elf("arm", ELFCLASS64, EM_AARCH64));
  InRoot(dir + "/libcuda.so.2", "INPUT(libcuda.so.1)");
  fs::create_directory(root_ + dir + "/libcuda.so.3");
  ASSERT_EQ(::mkfifo((root_ + dir + "/libcuda.so.4").c_str(), 0644), 0);
  InRoot(dir + "/libcudart.so.12", Elf("runtime"));
  EXPECT_THAT(Copies(), IsEmpty());
}

TEST_F(HookTest, LinksStayInTheRoot) {
  const std::string outside = base_ + "/outside";
  Write(outside + "/libcuda.so.9", Elf("the machine's"));
  Write(outside + "/preload", "the machine's\n");
  InRoot(kGlibc, "");
  // Absolute links lead to the root's own files, and those out of it nowhere.
  InRoot("/opt/driver/libcuda.so.580", Elf("real"));
  Link(std::string(kDebianDir) + "/libcuda.so.1", "/opt/driver/libcuda.so.580");
  Link("/usr/lib64/libcuda.so.1", outside + "/libcuda.so.9");
  Link("/usr/local/nvidia/lib", "../../../../../../../../../../.." + outside);
  Link("/usr/lib/wsl/lib", "/proc/self/root" + outside);
  Link("/etc/ld.so.preload", outside + "/preload");
  Link("/run", "/../../.." + outside);
  fs::create_directories(root_ + outside);
  Delivered([&] {
    EXPECT_EQ(Root("/opt/driver/libcuda.so.580"), Elf("forwarder"));
    EXPECT_EQ(Read(root_ + outside + "/divvy/real/libcuda.so.1"), Elf("real"));
    EXPECT_EQ(Read(outside + "/libcuda.so.9"), Elf("the machine's"));
    EXPECT_EQ(Read(outside + "/preload"), "the machine's\n");
    EXPECT_FALSE(fs::exists(outside + "/divvy"));
  });
}

TEST_F(HookTest, OneFileByTwoMountsIsCoveredTwice) {
  InRoot(kGlibc, "");
  InRoot(std::string(kDebianDir) + "/libcuda.so.1", "");
  InRoot("/usr/lib64/libcuda.so.1", "");
  Write(base_ + "/driver", Elf("real"));
  const bool apart = Apart([&] {
    for (const std::string& at : {std::string(kDebianDir), std::string("/usr/lib64")})
      ASSERT_EQ(::mount((base_ + "/driver").c_str(), (root_ + at + "/libcuda.so.1").c_str(),
                        nullptr, MS_BIND, nullptr),
                0);
    ASSERT_TRUE(Deliver(container_, options_).ok());
    EXPECT_EQ(Root(std::string(kDebianDir) + "/libcuda.so.1"), Elf("forwarder"));
    EXPECT_EQ(Root("/usr/lib64/libcuda.so.1"), Elf("forwarder"));
    EXPECT_EQ(Root("/run/divvy/real/libcuda.so.1"), Elf("real"));
  });
  if (!apart) GTEST_SKIP() << "no mount namespace can be made here";
}

TEST_F(HookTest, ARootThatIsReadOnlyAlreadyStaysSo) {
  InRoot(kGlibc, "");
  InRoot("/usr/lib64/libcuda.so.1", Elf("real"));
  const bool apart = Apart([&] {
    ASSERT_EQ(::mount(root_.c_str(), root_.c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(::mount(nullptr, root_.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID,
                      nullptr),
              0);
    const auto delivered = Deliver(container_, options_);
    ASSERT_TRUE(delivered.ok()) << delivered.error().message;
    EXPECT_EQ(Root("/usr/lib64/libcuda.so.1"), Elf("forwarder"));
    EXPECT_EQ(Root("/etc/ld.so.preload"), "/run/divvy/lib/libdivvy.so\n");
    struct statvfs st {};
    ASSERT_EQ(::statvfs(root_.c_str(), &st), 0);
    EXPECT_EQ(st.f_flag & (ST_RDONLY | ST_NOSUID), ST_RDONLY | ST_NOSUID);
  });
  if (!apart) GTEST_SKIP() << "no mount namespace can be made here";
}

TEST_F(HookTest, MuslHasNoPreload) {
  InRoot("/lib/ld-musl-x86_64.so.1", "");
  InRoot("/usr/lib64/libcuda.so.580", Elf("real"));
  Delivered([&] {
    EXPECT_FALSE(fs::exists(root_ + "/etc/ld.so.preload"));
    EXPECT_EQ(Root("/usr/lib64/libcuda.so.580"), Elf("forwarder"));
  });
}

TEST_F(HookTest, Programs32BitFindALibraryOfTheirOwn) {
  InRoot(kGlibc, "");
  InRoot("/lib/ld-linux.so.2", "");
  Delivered([&] {
    EXPECT_EQ(Root("/etc/ld.so.preload"), "/run/divvy/lib/$PLATFORM/libdivvy.so\n");
    for (const char* platform : {"x86_64", "haswell", "xeon_phi"})
      EXPECT_EQ(Root(std::string("/run/divvy/lib/") + platform + "/libdivvy.so"), Elf("shim"));
    for (const char* platform : {"i386", "i486", "i586", "i686"})
      EXPECT_EQ(Root(std::string("/run/divvy/lib/") + platform + "/libdivvy.so"),
                Elf("none", ELFCLASS32, EM_386));
  });
}

TEST_F(HookTest, AnEmptyImage) {
  fs::remove_all(root_ + "/etc");  // FROM scratch
  Delivered([&] { EXPECT_EQ(Root("/run/divvy/self/tenant"), "web\n"); });
}

TEST_F(HookTest, NoShareAndADriverIsRefused) {
  InRoot(std::string(kDebianDir) + "/libcuda.so.1", Elf("real"));
  fs::remove_all(options_.tenant_dir);
  Refused("is the share there");
}

TEST_F(HookTest, NoShareAndAGpuIsRefused) {
  container_.has_gpu_nodes = true;
  fs::remove_all(options_.tenant_dir);
  Refused("is the share there");
}

TEST_F(HookTest, NoShareAndNoGpuRuns) {
  fs::remove_all(options_.tenant_dir);
  Delivered([&] { EXPECT_FALSE(fs::exists(root_ + "/run/divvy")); }, "runs without a share");
}

TEST_F(HookTest, AnIncompleteInstallationIsRefused) {
  InRoot(std::string(kDebianDir) + "/libcuda.so.1", Elf("real"));
  fs::remove_all(options_.lib_dir + "/libcuda-forward");
  Refused("is Divvy installed completely?");
}

TEST_F(HookTest, ASecondShareIsRefused) {
  InRoot(std::string(kDebianDir) + "/libcuda.so.1", Elf("real"));
  const bool apart = Apart([&] {
    ASSERT_TRUE(Deliver(container_, options_).ok());
    const Result<std::string> second = Deliver(container_, options_);
    ASSERT_FALSE(second.ok());
    EXPECT_THAT(second.error().message, HasSubstr("has a share already"));
  });
  if (!apart) GTEST_SKIP() << "no mount namespace can be made here";
}

TEST_F(HookTest, AGpuWithoutADriverIsSaid) {
  InRoot(kGlibc, "");
  container_.has_gpu_nodes = true;
  Delivered([] {}, "no libcuda.so was found");
}

// --- what runtimes say ---------------------------------------------------------------------------

TEST(Bundle, State) {
  const Result<Container> state =
      ParseState(R"({"ociVersion":"1.0.2","id":"a1","status":"creating","pid":7,"bundle":"/b"})");
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->id, "a1");
  EXPECT_EQ(state->bundle, "/b");
  for (const char* wrong : {"", "[]", "{}", R"({"bundle":7})", "\xff"})
    EXPECT_FALSE(ParseState(wrong).ok()) << wrong;
}

TEST(Bundle, Config) {
  Container c;
  c.bundle = "/b";
  ASSERT_TRUE(ParseConfig(R"({"root":{"path":"rootfs"},"process":{"env":["A=1",
    "LD_LIBRARY_PATH=/opt/a::rel:/opt/b"]},"mounts":[{"destination":"/proc"},
    {"destination":"/usr/lib64/libcuda.so.580.65"}],"linux":{"devices":[{"path":"/dev/nvidia0"}]}})",
                          c)
                  .ok());
  EXPECT_EQ(c.root, "/b/rootfs");
  EXPECT_THAT(c.library_path, ElementsAre("/opt/a", "/opt/b"));
  EXPECT_THAT(c.driver_mounts, ElementsAre("/usr/lib64"));
  EXPECT_TRUE(c.has_gpu_nodes);

  Container odd;
  EXPECT_TRUE(ParseConfig(R"({"root":{"path":"/r"},"process":7,"mounts":[1,{"destination":[]}],
    "linux":{"devices":"all"}})",
                          odd)
                  .ok());
  EXPECT_EQ(odd.root, "/r");
  EXPECT_FALSE(odd.has_gpu_nodes);
  EXPECT_FALSE(ParseConfig("{}", odd).ok());
  EXPECT_FALSE(ParseConfig("", odd).ok());
}

TEST(Cache, OfThisMachineAndDamaged) {
  std::string cache(48, '\0');
  const auto put = [&](size_t at, uint32_t word) { std::memcpy(&cache[at], &word, sizeof word); };
  std::memcpy(cache.data(), "glibc-ld.so.cache1.1", 20);
  put(20, 3);
  cache.resize(48 + 3 * 24);
  const auto text = [&](const std::string& s) {
    const auto at = static_cast<uint32_t>(cache.size());
    cache += s;
    cache += '\0';
    return at;
  };
  const uint32_t key = text("libcuda.so.1"), other = text("libc.so.6");
  const uint32_t first = text("/a/libcuda.so.1"), second = text("/b/libcuda.so.1");
  const auto entry = [&](unsigned i, uint32_t flags, uint32_t k, uint32_t v) {
    put(48 + i * 24, flags), put(52 + i * 24, k), put(56 + i * 24, v);
  };
  entry(0, 0x0303, key, first);
  entry(1, 0x0303, other, second);
  entry(2, 0x0303, key, second);
  EXPECT_THAT(CachedCopies(cache), ElementsAre("/a/libcuda.so.1", "/b/libcuda.so.1"));
  EXPECT_THAT(CachedCopies("ld.so-1.7.0\0\0\0\0" + cache),  // the old format before the new
              ElementsAre("/a/libcuda.so.1", "/b/libcuda.so.1"));
  entry(2, 0x0003, key, second);  // of 32-bit programs
  EXPECT_THAT(CachedCopies(cache), ElementsAre("/a/libcuda.so.1"));
  put(20, UINT32_MAX);
  entry(0, 0x0303, UINT32_MAX, first);
  entry(2, 0x0303, key, UINT32_MAX);
  EXPECT_THAT(CachedCopies(cache), IsEmpty());
  for (size_t n = 0; n <= cache.size(); ++n) CachedCopies(cache.substr(0, n));
}

}  // namespace
}  // namespace divvy::hook
