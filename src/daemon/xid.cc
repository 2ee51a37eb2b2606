#include "src/daemon/xid.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>

namespace divvy::daemon {
namespace {

struct Row {
  uint64_t xid;
  XidMeaning meaning;
};

constexpr Row kRows[] = {
    {13, {"graphics engine exception", true, false}},
    {31, {"GPU memory page fault", true, false}},
    {32, {"corrupted push buffer", true, false}},
    {43, {"a program's work was stopped", true, false}},
    {45, {"a program's channel was removed after an earlier error", true, false}},
    {46, {"GPU stopped processing", false, true}},
    {48, {"double-bit ECC error", false, true}},
    {61, {"microcontroller warning", false, false}},
    {62, {"microcontroller halt", false, true}},
    {63, {"ECC row remapping is pending until a reset", false, false}},
    {64, {"ECC row remapping failed", false, false}},
    {68, {"video decoder exception", true, false}},
    {69, {"graphics engine class error", true, false}},
    {74, {"NVLink error", false, false}},
    {79, {"GPU has fallen off the bus", false, true}},
    {92, {"high rate of single-bit ECC errors", false, false}},
    {94, {"contained ECC error", true, false}},
    {95, {"uncontained ECC error", false, true}},
    {109, {"context switch timeout", true, false}},
    {119, {"GSP does not answer", false, true}},
    {120, {"GSP error", false, true}},
    {140, {"unrecovered ECC error", false, true}},
    {143, {"GPU initialization failed", false, true}},
};

}  // namespace

XidMeaning MeaningOf(uint64_t xid) {
  const auto row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.xid == xid; });
  return row == std::end(kRows) ? XidMeaning{"see NVIDIA's list of Xids", false, false}
                                : row->meaning;
}

std::optional<XidLine> ParseXidLine(const std::string& line) {
  const std::string mark = "NVRM: Xid (PCI:";
  const size_t at = line.find(mark);
  if (at == std::string::npos) return std::nullopt;
  const size_t from = at + mark.size(), close = line.find("): ", from);
  if (close == std::string::npos || close - from > 32) return std::nullopt;
  XidLine out{.pci = line.substr(from, close - from)};
  char* end = nullptr;
  out.xid = std::strtoull(line.c_str() + close + 3, &end, 10);
  if (end == line.c_str() + close + 3) return std::nullopt;
  if (const size_t pid = line.find(" pid=", close); pid != std::string::npos) {
    const long n = std::strtol(line.c_str() + pid + 5, nullptr, 10);
    if (n > 0 && n < 1 << 30) out.pid = static_cast<pid_t>(n);
  }
  return out;
}

bool SamePci(const std::string& of_line, const std::string& of_nvml) {
  unsigned a[3] = {}, b[3] = {};
  return std::sscanf(of_line.c_str(), "%x:%x:%x", &a[0], &a[1], &a[2]) == 3 &&
         std::sscanf(of_nvml.c_str(), "%x:%x:%x", &b[0], &b[1], &b[2]) == 3 &&
         std::equal(std::begin(a), std::end(a), b);
}

KernelLog::KernelLog() : fd_(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (fd_.valid()) ::lseek(fd_.get(), 0, SEEK_END);
}

std::vector<XidLine> KernelLog::Read() {
  std::vector<XidLine> out;
  char record[8192];
  while (fd_.valid()) {
    const ssize_t n = ::read(fd_.get(), record, sizeof record);
    if (n < 0 && (errno == EPIPE || errno == EINTR)) continue;  // some were overwritten meanwhile
    if (n <= 0) break;
    if (auto line = ParseXidLine(std::string(record, static_cast<size_t>(n))))
      out.push_back(std::move(*line));
  }
  return out;
}

}  // namespace divvy::daemon
