// Each finding of `divvy doctor` on a machine that is made up to have it, and no finding on one
// that is as it should be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "src/abi/cuda.h"
#include "src/abi/nvml.h"
#include "src/cli/doctor/checks.h"

namespace divvy::cli::doctor {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kVersionText[] =
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";

class DoctorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = ::testing::TempDir() + "divvy-doctor-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    world_.root = path;
    // A healthy machine with one GPU.
    Write("/proc/driver/nvidia/version", kVersionText);
    for (const char* node : {"/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"}) {
      Write(node, "");
      ::chmod((world_.root + node).c_str(), 0666);
    }
    Write("/proc/sys/user/max_user_namespaces", "15000\n");
    world_.uid = 1000;
    world_.open_files = 1 << 20;
    world_.locked_memory = 8 << 20;
    world_.kernel = "6.1.0-18-amd64";
    world_.can_isolate = world_.can_cgroup = true;
    world_.version = "1.2";
    world_.cuda_copies = {"/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"};
    world_.nvml_copies = {"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"};
    world_.cuda_init = CUDA_SUCCESS;
    NvmlFacts facts;
    facts.driver_version = "580.95.05";
    facts.cuda_version = 13000;
    facts.devices = {{.index = 0, .name = "NVIDIA H100", .uuid = "GPU-1", .mig_mode = 0u}};
    world_.nvml = facts;
    world_.daemon.dir = "/run/divvy";
    world_.daemon.dir_exists = world_.daemon.dir_writable = true;
    world_.daemon.dir_free_bytes = 1 << 30;
  }
  void TearDown() override { std::filesystem::remove_all(world_.root); }

  void Write(const std::string& path, const std::string& text) {
    const std::string whole = world_.root + path;
    std::filesystem::create_directories(std::filesystem::path(whole).parent_path());
    std::ofstream(whole) << text;
  }
  void Process(const std::string& pid, const std::string& program) {
    Write("/proc/" + pid + "/comm", program.substr(0, 15) + "\n");
    Write("/proc/" + pid + "/cmdline", "/usr/bin/" + program + std::string(1, '\0') + "-d");
  }
  NvmlFacts& nvml() { return world_.nvml->value(); }

  // What is not as it should be.
  std::vector<Finding> Findings() const {
    std::vector<Finding> all = Examine(world_);
    std::erase_if(all, [](const Finding& f) { return f.level == Level::kOk; });
    return all;
  }
  // Exactly one, of this check and level, whose message has `words`.
  Finding Only(const char* check, Level level, const std::string& words) const {
    const std::vector<Finding> all = Findings();
    EXPECT_EQ(all.size(), 1u);
    for (const Finding& f : all) {
      EXPECT_EQ(f.check, check) << f.message;
      EXPECT_STREQ(Word(f.level), Word(level)) << f.message;
      EXPECT_THAT(f.message, HasSubstr(words));
      EXPECT_FALSE(f.advice.empty()) << f.message << ": a finding says what to do";
    }
    return all.empty() ? Finding{} : all.front();
  }

  World world_;
};

TEST_F(DoctorTest, AHealthyMachineHasNoFindings) {
  EXPECT_THAT(Findings(), IsEmpty());
  std::set<std::string> names;
  for (const Check& check : Checks()) EXPECT_TRUE(names.insert(check.name).second) << check.name;
}

TEST_F(DoctorTest, EveryFindingCarriesItsChecksName) {
  world_.root += "/nothing-here";
  world_.cuda_copies.clear();
  world_.nvml_copies.clear();
  world_.nvml.reset();
  world_.cuda_init.reset();
  world_.uid = 0;
  for (const Check& check : Checks()) {
    std::vector<Finding> findings;
    check.look(world_, findings);
    for (const Finding& f : findings) EXPECT_EQ(f.check, check.name);
  }
}

TEST_F(DoctorTest, NoModule) {
  std::filesystem::remove_all(world_.root + "/proc/driver");
  EXPECT_EQ(Only("driver-module", Level::kStop, "not loaded").command, "modprobe nvidia");
}

TEST_F(DoctorTest, Nouveau) {
  std::filesystem::remove_all(world_.root + "/proc/driver");
  Write("/sys/bus/pci/drivers/nouveau/bind", "");
  Write("/sys/module/nouveau/refcnt", "1");
  Only("driver-module", Level::kStop, "nouveau");
}

TEST_F(DoctorTest, NoUvmNode) {
  std::filesystem::remove(world_.root + "/dev/nvidia-uvm");
  EXPECT_EQ(Only("device-nodes", Level::kStop, "/dev/nvidia-uvm is missing").command,
            "nvidia-modprobe -u -c 0");
}

TEST_F(DoctorTest, NoDevice) {
  std::filesystem::remove(world_.root + "/dev/nvidia0");
  Only("device-nodes", Level::kStop, "no /dev/nvidia0");
}

TEST_F(DoctorTest, NodesThatTheUserMayNotUse) {
  ::chmod((world_.root + "/dev/nvidia0").c_str(), 0660);
  struct stat st;
  ASSERT_EQ(::stat((world_.root + "/dev/nvidia0").c_str(), &st), 0);
  world_.uid = st.st_uid + 1;
  world_.groups = {st.st_gid + 1};
  Only("device-nodes", Level::kStop, "may not read and write /dev/nvidia0");
  world_.groups = {st.st_gid};
  EXPECT_THAT(Findings(), IsEmpty());
  world_.groups.clear();
  world_.uid = 0;
  EXPECT_THAT(Findings(), IsEmpty());
}

TEST_F(DoctorTest, LibrariesOfAnotherVersionThanTheModule) {
  world_.cuda_copies = {"/usr/lib/libcuda.so.570.10"};
  Only("libraries", Level::kStop, "570.10");
}

TEST_F(DoctorTest, ForwardCompatibilityIsNoMismatch) {
  world_.cuda_copies.push_back("/usr/local/cuda-13/compat/libcuda.so.590.1");
  Only("libraries", Level::kNote, "2 copies");
}

TEST_F(DoctorTest, CopiesMatterMoreWithoutRoot) {
  world_.cuda_copies.push_back("/opt/lib/libcuda.so.580.95.05");
  Only("libraries", Level::kNote, "2 copies");
  world_.can_isolate = false;
  const std::vector<Finding> all = Findings();
  ASSERT_EQ(all.size(), 2u);  // and that it is cooperative
  EXPECT_STREQ(Word(all[0].level), "warning");
  EXPECT_EQ(all[1].check, "rights");
}

TEST_F(DoctorTest, AStubInFrontOfTheDriver) {
  world_.cuda_copies = {"/usr/local/cuda/lib64/stubs/libcuda.so"};
  Only("libraries", Level::kStop, "stub");
}

TEST_F(DoctorTest, NoLibraries) {
  world_.nvml_copies.clear();
  world_.nvml.reset();
  Only("libraries", Level::kStop, "libnvidia-ml.so.1 is neither");
}

TEST_F(DoctorTest, NvmlAfterAnUpgrade) {
  world_.nvml = Result<NvmlFacts>(Unavailable("nvmlInit: Driver/library version mismatch"));
  EXPECT_EQ(Only("nvml", Level::kStop, "version mismatch").command, "reboot");
}

TEST_F(DoctorTest, NvmlWithoutDevicesOrFigures) {
  nvml().devices[0].figures_by_process = false;
  Only("nvml", Level::kWarning, "no memory figures by process");
  nvml().devices.clear();
  Only("nvml", Level::kStop, "no device");
}

TEST_F(DoctorTest, CuInitThatFails) {
  world_.cuda_init = CUDA_ERROR_SYSTEM_NOT_READY;
  EXPECT_THAT(Only("cuda-init", Level::kStop, "802").command, HasSubstr("fabricmanager"));
  world_.cuda_init = -1;
  Only("cuda-init", Level::kStop, "does not come back");
  world_.cuda_init = CUDA_ERROR_NO_DEVICE;
  world_.env["CUDA_VISIBLE_DEVICES"] = "";
  EXPECT_EQ(Only("cuda-init", Level::kStop, "no device").command, "unset CUDA_VISIBLE_DEVICES");
}

TEST_F(DoctorTest, ComputeModes) {
  nvml().devices[0].compute_mode = NVML_COMPUTEMODE_EXCLUSIVE_PROCESS;
  EXPECT_EQ(Only("compute-mode", Level::kStop, "EXCLUSIVE_PROCESS").command,
            "nvidia-smi -i 0 -c DEFAULT");
  nvml().devices[0].compute_mode = NVML_COMPUTEMODE_PROHIBITED;
  Only("compute-mode", Level::kStop, "PROHIBITED");
}

TEST_F(DoctorTest, MigAndConfidentialComputing) {
  nvml().devices[0].mig_mode = 1;
  EXPECT_THAT(Only("mig", Level::kWarning, "MIG mode").command, HasSubstr("-mig 0"));
  nvml().devices[0].mig_mode.reset();
  nvml().confidential = true;
  Only("confidential", Level::kWarning, "confidential computing is on");
}

TEST_F(DoctorTest, MpsThatRuns) {
  Process("71", "nvidia-cuda-mps-control");
  Process("72", "nvidia-cuda-mps-server");
  Process("73", "nvidia-settings");
  Write("/tmp/nvidia-mps/control", "");
  const Finding f = Only("mps", Level::kStop, "pid 71, 72");
  EXPECT_EQ(f.command, "echo quit | nvidia-cuda-mps-control");
}

TEST_F(DoctorTest, MpsThatIsGone) {
  Write("/tmp/nvidia-mps/control", "");
  EXPECT_EQ(Only("mps", Level::kWarning, "left over").command, "rm -r /tmp/nvidia-mps");
}

TEST_F(DoctorTest, MpsElsewhere) {
  world_.env["CUDA_MPS_PIPE_DIRECTORY"] = "/var/mps";
  Process("71", "nvidia-cuda-mps-control");
  const std::vector<Finding> all = Findings();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT(all[0].command, HasSubstr("CUDA_MPS_PIPE_DIRECTORY=/var/mps"));
  EXPECT_STREQ(Word(all[1].level), "note");
}

TEST_F(DoctorTest, AnotherProductsHooks) {
  Write("/etc/ld.so.preload", "/usr/local/vgpu/libvgpu.so\n");
  Only("preload", Level::kStop, "/etc/ld.so.preload has another product's hooks");
  Write("/etc/ld.so.preload", "/usr/lib/libjemalloc.so\n");
  EXPECT_THAT(Findings(), IsEmpty());
  world_.env["LD_PRELOAD"] = "/opt/libnvshare.so";
  EXPECT_EQ(Only("preload", Level::kStop, "LD_PRELOAD").command, "unset LD_PRELOAD");
}

TEST_F(DoctorTest, AnOldKernel) {
  world_.kernel = "4.18.0-513.el8";
  Only("kernel", Level::kStop, "4.18");
  world_.kernel = "5.3.0";
  EXPECT_THAT(Findings(), IsEmpty());
}

TEST_F(DoctorTest, InAContainer) {
  Write("/.dockerenv", "");
  Only("container", Level::kNote, "inside of a container");
}

TEST_F(DoctorTest, RightsCgroupsAndNamespaces) {
  world_.can_isolate = false;
  Only("rights", Level::kWarning, "LD_PRELOAD");
  world_.can_isolate = true;
  world_.can_cgroup = false;
  Only("cgroups", Level::kNote, "no cgroup v2");
  Write("/sys/fs/cgroup/cgroup.controllers", "cpu memory");
  Only("cgroups", Level::kNote, "may not make cgroups");
  world_.can_cgroup = true;
  Write("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
  EXPECT_THAT(Only("user-namespaces", Level::kNote, "user namespaces").command,
              HasSubstr("apparmor"));
}

TEST_F(DoctorTest, Limits) {
  world_.open_files = 1024;
  Only("limits", Level::kWarning, "1024 open files");
  world_.open_files = 1 << 20;
  world_.locked_memory = 0;
  Only("limits", Level::kNote, "locked memory");
}

TEST_F(DoctorTest, ContainerRuntimes) {
  Write("/etc/containerd/config.toml", "version = 3\n  enable_cdi = false\n");
  Only("containers", Level::kNote, "CDI is off");
  Write("/etc/containerd/config.toml", "version = 3\n");
  Write("/etc/cdi/nvidia.yaml", "");
  EXPECT_THAT(Findings(), IsEmpty());
  std::string seen;
  for (const Finding& f : Examine(world_))
    if (f.check == "containers") seen += f.message;
  EXPECT_EQ(seen, "containerd; CDI: /etc/cdi/nvidia.yaml");
}

TEST_F(DoctorTest, AnotherDevicePlugin) {
  Write("/var/lib/kubelet/device-plugins/kubelet.sock", "");
  Write("/var/lib/kubelet/device-plugins/rdma.sock", "");
  EXPECT_THAT(Findings(), IsEmpty());
  Write("/var/lib/kubelet/device-plugins/nvidia-gpu.sock", "");
  EXPECT_THAT(Only("device-plugins", Level::kWarning, "nvidia-gpu.sock").command,
              HasSubstr("kubectl label node"));
}

TEST_F(DoctorTest, WhatIsMissingOfDivvy) {
  world_.missing_file = "/usr/lib/divvy/libdivvy.so is missing";
  Only("installation", Level::kStop, "libdivvy.so");
}

TEST_F(DoctorTest, RuntimeFolders) {
  DaemonFacts& d = world_.daemon;
  d.dir_foreign = true;
  Only("runtime-folder", Level::kStop, "belongs to another user");
  d.dir_foreign = false;
  d.dir_writable = false;
  Only("runtime-folder", Level::kStop, "cannot be written");
  d.dir_writable = true;
  d.dir_free_bytes = 4096;
  Only("runtime-folder", Level::kStop, "full file system");
  d.dir_too_long = true;
  Only("runtime-folder", Level::kStop, "too long");
}

TEST_F(DoctorTest, Daemons) {
  DaemonFacts& d = world_.daemon;
  d.socket_exists = true;
  Only("daemon", Level::kNote, "socket is left");
  d.tenants_left = 3;
  Only("daemon", Level::kStop, "left 3 shares");
  d.left_private = true;
  EXPECT_EQ(Only("daemon", Level::kWarning, "left 3 shares").command, "divvy ps");
  d.answers = true;
  d.status = {{"version", "1.1"}, {"pid", 7}, {"uptime_s", 4.0}};
  EXPECT_EQ(Only("daemon", Level::kWarning, "of version 1.1").command, "divvy daemon stop");
  d.error = "timed out";
  Only("daemon", Level::kStop, "timed out");
}

TEST_F(DoctorTest, ADaemonThatAnswersInAnotherForm) {
  world_.daemon.answers = true;
  world_.daemon.status = nlohmann::json::array();
  world_.daemon.devices = {{"devices", {1, 2}}};
  world_.daemon.tenants = {{"tenants", {{{"name", 7}}}}};
  for (const char* check : {"daemon", "devices", "tenants"}) {
    bool told = false;
    for (const Finding& f : Examine(world_))
      told = told || (f.check == check && f.level == Level::kWarning &&
                      f.message.find("unknown form") != std::string::npos);
    EXPECT_TRUE(told) << check;
  }
}

TEST_F(DoctorTest, WhatTheDaemonSees) {
  DaemonFacts& d = world_.daemon;
  d.answers = true;
  d.status = {{"version", "1.2"}};
  d.devices = {{"devices", {{{"index", 0}, {"health", "nvmlDeviceGetMemoryInfo: GPU is lost"}}}}};
  Only("devices", Level::kStop, "GPU is lost");
  d.devices = {{"devices",
                {{{"index", 0},
                  {"outside_bytes", 1 << 30},
                  {"outside", {{{"pid", 9}, {"command", "Xorg"}}}}}}}};
  Only("devices", Level::kNote, "9 Xorg");
  d.devices = nullptr;
  d.tenants = {{"tenants",
                {{{"name", "web"},
                  {"findings",
                   {{{"code", "no_hello"}, {"active", true}, {"message", "pid 5"}},
                    {{"code", "old"}, {"active", false}}}}}}}};
  Only("tenants", Level::kWarning, "no_hello");
  d.tenants = {{"tenants", {{{"name", "web"}, {"shares", {{{"over", true}}}}}}}};
  Only("tenants", Level::kWarning, "'web' uses more");
}

TEST_F(DoctorTest, ASimulatedMachineNeedsNoModule) {
  std::filesystem::remove_all(world_.root + "/proc/driver");
  Process("71", "nvidia-cuda-mps-control");
  world_.sim = true;
  EXPECT_THAT(Findings(), IsEmpty());
}

}  // namespace
}  // namespace divvy::cli::doctor
