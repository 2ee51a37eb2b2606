// Memory of another process: a helper (this program again, `divvy load --export-ipc`) allocates and
// hands out IPC handles, this process opens them. Both are processes of the share, so it counts
// once.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "src/cli/load/ipc_helper.h"
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

std::string Hex(const void* data, size_t size) {
  std::string text(size * 2, '0');
  for (size_t i = 0; i < size; ++i)
    std::snprintf(&text[i * 2], 3, "%02x", static_cast<const unsigned char*>(data)[i]);
  return text;
}

bool Unhex(const std::string& text, void* data, size_t size) {
  if (text.size() != size * 2) return false;
  for (size_t i = 0; i < size; ++i) {
    unsigned value = 0;
    if (std::sscanf(text.c_str() + i * 2, "%2x", &value) != 1) return false;
    static_cast<unsigned char*>(data)[i] = static_cast<unsigned char>(value);
  }
  return true;
}

// The helper process and one line to and from it at a time.
class Helper {
 public:
  ~Helper() {
    if (to_ != nullptr) std::fclose(to_);
    if (from_ != nullptr) std::fclose(from_);
    while (pid_ > 0 && ::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  Status Start(int device) {
    int down[2], up[2];
    if (::pipe2(down, O_CLOEXEC) != 0 || ::pipe2(up, O_CLOEXEC) != 0) return IoError("pipe", errno);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, down[0], 0);
    posix_spawn_file_actions_adddup2(&files, up[1], 1);
    const std::string ordinal = std::to_string(device);
    const char* argv[] = {"divvy", "load", "--export-ipc", "--device", ordinal.c_str(), nullptr};
    const int err = ::posix_spawn(&pid_, "/proc/self/exe", &files, nullptr,
                                  const_cast<char* const*>(argv), environ);
    posix_spawn_file_actions_destroy(&files);
    ::close(down[0]);
    ::close(up[1]);
    to_ = ::fdopen(down[1], "w");
    from_ = ::fdopen(up[0], "r");
    return err == 0 ? Status{} : IoError("cannot start the exporting process", err);
  }

  // "ok REST" gives REST; "refused MESSAGE" is kNoRoom.
  Result<std::string> Ask(const std::string& line) {
    std::fprintf(to_, "%s\n", line.c_str());
    std::fflush(to_);
    char text[1024];
    if (std::fgets(text, sizeof(text), from_) == nullptr)
      return Unavailable("the exporting process ended");
    std::string answer(text);
    while (!answer.empty() && answer.back() == '\n') answer.pop_back();
    if (answer.rfind("ok", 0) == 0) return answer.size() > 3 ? answer.substr(3) : "";
    if (answer.rfind("refused ", 0) == 0) return NoRoom(answer.substr(8));
    return Internal(answer);
  }

 private:
  pid_t pid_ = 0;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

class Ipc : public MemoryPath {
 public:
  explicit Ipc(Driver driver) : driver_(driver) {}

  Status Take(Bytes amount) override {
    if (helper_ == nullptr) {
      helper_ = std::make_unique<Helper>();
      if (const Status s = helper_->Start(driver_.device()); !s.ok()) return s;
    }
    const Result<std::string> text = helper_->Ask("take " + std::to_string(amount.n));
    if (!text.ok()) return text.error();
    CUipcMemHandle handle{};
    if (!Unhex(*text, &handle, sizeof(handle))) return Internal("a broken IPC handle: " + *text);
    CUdeviceptr at = 0;
    DIVVY_CU_TAKE(driver_, amount, cuIpcOpenMemHandle_v2, &at, handle,
                  CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    held_.push_back(at);
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back()) DIVVY_CU(driver_, cuIpcCloseMemHandle, held_.back());
    if (helper_ == nullptr) return {};
    const Result<std::string> done = helper_->Ask("release");
    return done.ok() ? Status{} : done.error();
  }

  CUdeviceptr Last() const override { return held_.empty() ? 0 : held_.back(); }

 private:
  Driver driver_;
  std::unique_ptr<Helper> helper_;
  std::vector<CUdeviceptr> held_;
};

}  // namespace

std::unique_ptr<MemoryPath> IpcPath(Driver driver) { return std::make_unique<Ipc>(driver); }

Status ExportIpc(Driver driver) {
  std::vector<CUdeviceptr> held;
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer = "ok";
    if (line.rfind("take ", 0) == 0) {
      const size_t amount = std::stoull(line.substr(5));
      CUdeviceptr at = 0;
      const CUresult r = driver->cuMemAlloc_v2(&at, amount);
      CUipcMemHandle handle{};
      if (r == CUDA_SUCCESS) {
        held.push_back(at);
        DIVVY_CU(driver, cuIpcGetMemHandle, &handle, at);
        answer += " " + Hex(&handle, sizeof(handle));
      } else {
        const Status refused = driver.Check(r, "cuMemAlloc_v2", Bytes{amount});
        answer = (r == CUDA_ERROR_OUT_OF_MEMORY ? "refused " : "error ") + refused.error().message;
      }
    } else {
      for (; !held.empty(); held.pop_back()) DIVVY_CU(driver, cuMemFree_v2, held.back());
    }
    std::cout << answer << std::endl;
  }
  return {};
}

}  // namespace divvy::cli
